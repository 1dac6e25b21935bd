"""Tests that need a GPU: `make test-gpu`."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.modeling.hardware import Hardware, choose_hardware, make_deterministic
from codex_ml.train import loop
from codex_ml.train import step as step_module
from codex_ml.train.checkpoint import load_newest
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.prepare import make_trainable, prepare_model, save_trained
from codex_ml.train.monitor import machine_samples
from codex_ml.train.throughput import matmul_peak

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread", "gpu")]
ABOUT = {"vocab_size": 64, "begin": 0, "end": 0, "pad": 1, "seq_len": 8}
SHAPE = Model(hidden_size=64, intermediate_size=128, layers=2, heads=2, max_positions=64)


@pytest.fixture
def gpu() -> None:
    assert torch.cuda.is_available(), "these tests need a GPU that torch can use"
    make_deterministic(Hardware("cuda", "fp32", compile=False, threads=1, capability="test"), seed=0)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters()}


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_auto_takes_the_gpu_and_compiles_long_runs():
    found = choose_hardware(Runtime(), threads=1, max_steps=1000)
    assert (found.device, found.compile, found.capability) == ("cuda", True, torch.cuda.get_device_name())
    assert found.precision == ("bf16" if torch.cuda.is_bf16_supported() else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_killed_run_ends_with_the_same_bytes(recipe, train_and_kill, tmp_path, precision):
    """Dropout draws from the GPU's RNG; fp16 also has the state of its scaler."""
    changes = {"accumulation": 3, "max_steps": 7, "gpu": precision, "keep_best": 2}
    found = {}
    for name, step in (("whole", 0), ("killed", 4)):
        folder = tmp_path / name
        folder.mkdir()
        if step:
            assert train_and_kill(folder, {"step": step}, **changes) == -signal.SIGKILL
            assert load_newest(folder / "scratch").state["step"] == 4
        recipe.seed_everything()
        model, _ = recipe.train(folder, **changes)
        found[name] = weights(model), load_newest(folder / "scratch")
    assert_equal(found["killed"][0], found["whole"][0])
    for part in ("weights", "optimizer"):
        assert_equal(getattr(found["killed"][1], part), getattr(found["whole"][1], part))
    assert found["killed"][1].state == found["whole"][1].state
    if precision == "fp16":
        assert found["whole"][1].state["scaler"]["scale"] > 0


def test_a_compiled_run_that_was_stopped_ends_with_the_same_bytes(recipe, monkeypatch, tmp_path):
    hardware = Hardware("cuda", "bf16", compile=True, threads=1, capability="test")
    rows = recipe.packed([200] * 40, seed=4, seq_len=64)

    def run(name: str) -> dict[str, torch.Tensor]:
        torch.compiler.reset()
        make_deterministic(hardware, seed=0)
        model = build_model(SHAPE, vocab_size=64, end=0, pad=1, seed=1, attention="sdpa")
        (tmp_path / name).mkdir(exist_ok=True)
        recipe.train(tmp_path / name, model=model, rows=rows, hardware=hardware, max_steps=8)
        return weights(model)

    whole, schedule = run("whole"), step_module.rates_of

    def stop(plan, step, train):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return schedule(plan, step, train)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "rates_of", stop)
        with pytest.raises(loop.Interrupted):
            run("stopped")
    assert_equal(run("stopped"), whole)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_runs_end_with_equal_bytes(recipe, tmp_path, attention, precision):
    """Rows long enough for the fused kernels."""
    hardware = Hardware("cuda", precision, compile=False, threads=1, capability="test")
    rows = recipe.packed([700, 30, 1500, 2, 900] * 8, seed=4, seq_len=512)
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        make_deterministic(hardware, seed=0)
        shape = shape_with(max_positions=512)
        model = build_model(shape, vocab_size=64, end=0, pad=1, seed=1, attention=attention)
        recipe.train(tmp_path / name, model=model, rows=rows, hardware=hardware, micro_batch_size=4, max_steps=5)
        found.append(weights(model))
    assert_equal(found[1], found[0])


def shape_with(**changes: object) -> Model:
    return SHAPE.model_copy(update=changes)


def test_memory_that_runs_out_halves_the_rows_of_a_pass_and_changes_nothing_else(recipe, tmp_path, caplog):
    """Real memory: the process may use 700 MiB, and the logits of 16 rows alone are 512 MiB."""
    vocabulary, hardware = 16_384, Hardware("cuda", "fp32", compile=False, threads=1, capability="test")
    rows = recipe.packed([3000] * 16, seed=4, seq_len=512)
    total = torch.cuda.get_device_properties(0).total_memory
    found = {}
    for name, limit in (("free", 1.0), ("limited", 700 * 2**20 / total)):
        (tmp_path / name).mkdir()
        model = build_model(shape_with(max_positions=512), vocab_size=vocabulary, end=0, pad=1, seed=1)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(limit)
        try:
            recipe.train(
                tmp_path / name, model=model, rows=rows, hardware=hardware, micro_batch_size=16, max_steps=2, lr=1e-3
            )
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        found[name] = weights(model), load_newest(tmp_path / name / "scratch").state["micro_batch_size"]
    assert found["free"][1] == 16
    assert found["limited"][1] in (1, 2, 4)
    for name, value in found["free"][0].items():
        torch.testing.assert_close(found["limited"][0][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_adapters_train_on_a_base_in_few_bits(recipe, tmp_path, monkeypatch, kind):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    build_model(SHAPE, vocab_size=64, end=0, pad=1, seed=1).save_pretrained(tmp_path / "models/base/small")
    settings = Model(path="models/base/small", quantization=kind, lora=Lora(rank=4, targets=("q_proj", "down_proj")))
    prepared = prepare_model(
        settings, ABOUT, attention="sdpa", seed=1, new_tokenizer=False, scratch=tmp_path / "scratch"
    )
    model = make_trainable(prepared, settings, Train(), seed=1)
    before = {name: p.detach().cpu().clone() for name, p in trainable_parameters(model).items()}
    recipe.train(tmp_path, model=model, gpu="bf16", max_steps=4, log_every=1)
    history = list(load_newest(tmp_path / "scratch").points())
    losses = [point["train/loss"] for point in history if "train/loss" in point]
    assert losses[-1] < losses[0]
    assert any(not torch.equal(p.detach().cpu(), before[n]) for n, p in trainable_parameters(model).items())
    (tmp_path / "out").mkdir()
    save_trained(model, tmp_path / "out", settings, scratch=tmp_path / "scratch")
    assert (tmp_path / "out/model.safetensors").is_file()


def test_packed_rows_equal_their_documents_alone_on_the_gpu():
    for architecture in ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox"):
        shape = Model.model_validate({**SHAPE.model_dump(), "architecture": architecture})
        for attention in ("eager", "sdpa"):
            model = build_model(shape, vocab_size=64, end=0, pad=1, seed=1, attention=attention).cuda().eval()
            ids = torch.randint(2, 64, (1, 24), generator=torch.Generator().manual_seed(2)).cuda()
            positions = torch.cat([torch.arange(9), torch.arange(1), torch.arange(14)])[None].cuda()
            batch = {"input_ids": ids, "position_ids": positions, "labels": ids.roll(-1)}
            with torch.no_grad():
                together = summed_loss(model, batch)
                alone = sum(
                    summed_loss(model, {key: value[:, begin:end] for key, value in batch.items()})
                    for begin, end in ((0, 9), (9, 10), (10, 24))
                )
            torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_the_monitor_sees_the_gpu():
    samples = machine_samples()
    next(samples)
    (gpu, *_) = next(samples)["gpus"]
    samples.close()
    assert gpu["memory_total_mb"] > gpu["memory_used_mb"] > 0


def test_the_peak_is_that_of_the_chip_and_leaves_the_random_numbers_alone():
    device, state = torch.device("cuda"), torch.cuda.get_rng_state()
    peaks = {precision: matmul_peak(device, precision) for precision in ("fp32", "bf16")}
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert peaks["bf16"] > peaks["fp32"] > 1e12
