"""The estimate of a run's memory: it counts the weights of real models, and agrees with measured peaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import read_yaml
from codex_ml.modeling.pack_files import Packed
from codex_ml.train import training_memory
from codex_ml.train.config import ARCHITECTURES, Model, Train
from codex_ml.train.model.build import build_model
from codex_ml.train.model.model_shape import model_shape
from codex_ml.train.training_memory import TrainingSize, fit_here, fit_training, largest_pass, training_need

MB, GIB = 1 << 20, 1 << 30
SMALL = {"hidden_size": 256, "intermediate_size": 688, "layers": 8, "heads": 4, "max_positions": 512}
# Peaks of the resident memory of one process after two steps on a CPU with AVX2, torch 2.13: shape, vocabulary, tokens per
# row, keys of `train`, MB.
MEASURED = [
    ({"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4}, 4096, 256, {"micro_batch_size": 8}, 719),
    (
        {"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4},
        4096,
        256,
        {"micro_batch_size": 32},
        1497,
    ),
    (SMALL, 4096, 512, {"micro_batch_size": 8}, 2009),
    (SMALL, 4096, 512, {"micro_batch_size": 8, "precision": "bf16"}, 2027),
    (SMALL, 32768, 256, {"micro_batch_size": 8}, 1904),
    (SMALL, 4096, 512, {"micro_batch_size": 8, "attention": "sdpa"}, 1683),
    (SMALL, 4096, 512, {"micro_batch_size": 8, "activation_checkpointing": True}, 1099),
    (
        {**SMALL, "architecture": "gpt2", "intermediate_size": 1024},
        4096,
        512,
        {"micro_batch_size": 8},
        2996,
    ),
    (
        {"hidden_size": 512, "intermediate_size": 1376, "layers": 7, "heads": 8, "max_positions": 512},
        16384,
        256,
        {"micro_batch_size": 4, "optimizer": "adamw"},
        1574,
    ),
]


def size_of(
    model: dict[str, Any], vocabulary: int, seq_len: int, train: dict[str, Any], **runtime: Any
) -> TrainingSize:
    section, keys = Model(**model), {"precision": "fp32", "compile": "off", **train}
    shape = model_shape(section, vocabulary)
    assert shape is not None
    return TrainingSize(shape, section, Train(**keys), Runtime(**runtime), seq_len, "cpu")


@pytest.mark.parametrize(("model", "vocabulary", "seq_len", "train", "measured"), MEASURED)
def test_the_estimate_is_near_the_measured_peak_and_the_lower_bound_below_it(
    model: dict[str, Any], vocabulary: int, seq_len: int, train: dict[str, Any], measured: int
) -> None:
    need = training_need(size_of(model, vocabulary, seq_len, train))
    assert need.least < measured * MB
    assert 0.85 < need.likely / (measured * MB) < 1.2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_are_those_of_the_real_model(architecture: str, tied: bool) -> None:
    """Norms and biases, which the shape leaves out, have one dimension; t5 also has 2 tables of relative positions."""
    if architecture == "t5" and not tied:
        pytest.skip("t5 shares its matrix")
    own = {} if architecture in ("gpt2", "gpt_neox", "t5") else {"kv_heads": 2}
    model = Model(
        architecture=architecture, hidden_size=32, intermediate_size=48, layers=3, heads=4, max_positions=64,
        tie_embeddings=tied, **own,
    )  # fmt: skip
    built = build_model(model, vocab_size=100, end=0, pad=1, seed=0)
    real = {id(p): p.numel() for name, p in built.named_parameters() if p.ndim > 1 and "relative" not in name}
    shape = model_shape(model, 100)
    assert shape is not None
    assert shape.weights == sum(real.values())


def test_what_no_machine_holds_is_refused_with_a_value_that_would_fit() -> None:
    huge = {"hidden_size": 4096, "intermediate_size": 14336, "layers": 32, "heads": 32, "max_positions": 512}
    size = size_of(huge, 32768, 512, {"micro_batch_size": 8})
    with pytest.raises(UserError) as refused:
        fit_training(size, 24 * GIB)
    assert str(refused.value) == (
        "train needs at least 90.7 GiB of memory (one pass 31.0 GiB, optimizer 30.0 GiB, weights 29.5 GiB), and this "
        "machine has 24.0 GiB; model.layers 2 would fit"
    )


def test_a_batch_that_does_not_fit_is_refused_and_the_advised_one_fits() -> None:
    size = size_of(SMALL, 4096, 512, {"micro_batch_size": 1024})
    with pytest.raises(UserError, match=r"train.micro_batch_size 64 would fit$"):
        fit_training(size, 24 * GIB)
    assert fit_training(size_of(SMALL, 4096, 512, {"micro_batch_size": 64}), 24 * GIB) == ""


def test_what_may_not_fit_is_a_warning() -> None:
    size = size_of(SMALL, 4096, 512, {"micro_batch_size": 8})
    assert fit_training(size, 2 * GIB).startswith(
        "train may need 2.1 GiB of memory (one pass 1.7 GiB, processes 0.4 GiB"
    )


def test_each_process_on_this_machine_counts() -> None:
    model = {"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4}
    with pytest.raises(
        UserError, match=r"^train needs at least 2\d\d\.\d GiB of memory .* runtime.processes \d+ would fit$"
    ):
        fit_training(size_of(model, 4096, 256, {"micro_batch_size": 8, "accumulation": 128}, processes=1024), 24 * GIB)


@pytest.mark.parametrize("seq_len", [2**14, 2**17, 2**20])
def test_the_mask_of_long_rows_counts(seq_len: int) -> None:
    model = {"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4, "max_positions": 2**24}
    need = training_need(size_of(model, 4096, seq_len, {"micro_batch_size": 1, "max_steps": 300, "compile": "on"}))
    assert need.least > 5 * seq_len**2


@pytest.mark.parametrize(
    ("model", "seq_len", "train"),
    [
        # the shape of SmolLM2-135M (Allal et al. 2025)
        ({"hidden_size": 576, "intermediate_size": 1536, "layers": 30, "heads": 9, "kv_heads": 3}, 512, {"micro_batch_size": 8}),
        ({"hidden_size": 768, "intermediate_size": 3072, "layers": 12, "heads": 12, "architecture": "gpt2"}, 1024, {"micro_batch_size": 4}),
    ],
)  # fmt: skip
def test_models_that_fit_into_24_gib_are_not_refused(
    model: dict[str, Any], seq_len: int, train: dict[str, Any]
) -> None:
    fit_training(size_of({**model, "max_positions": 8192}, 50_257, seq_len, train), 24 * GIB)


def test_no_preset_up_to_500_million_parameters_is_refused_on_24_gib(project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    names = [name for name in read_yaml(Path("models/presets.yaml")) if name not in ("llama-1b", "mistral-7b")]
    assert "small" in names
    for name in names:
        fit_training(size_of({"preset": name}, 4096, 256, {"micro_batch_size": 8}), 24 * GIB)


def test_a_gpu_counts_the_fewest_rows_to_which_the_loop_halves() -> None:
    size = size_of(SMALL, 4096, 512, {"micro_batch_size": 24})
    on_gpu = TrainingSize(size.shape, size.model, size.train, size.runtime, 512, "cuda")
    three = size_of(SMALL, 4096, 512, {"micro_batch_size": 3, "accumulation": 8})
    assert (
        training_need(on_gpu).parts[-1].least
        == training_need(
            TrainingSize(
                three.shape, three.model, three.train.model_copy(update={"accumulation": 1}), three.runtime, 512, "cuda"
            )
        )
        .parts[-1]
        .least
        + 21 * 512 * training_memory.BATCH_BYTES
    )
    assert training_need(on_gpu).device == "GPU"


def test_the_stage_reads_the_vocabulary_of_its_rows_and_refuses(tmp_path: Path, monkeypatch) -> None:
    Packed(
        dtype="uint16", seq_len=512, layout="packed", tokenizer_kind="byte_bpe", vocab_size=4096, begin=0, end=0, pad=1,
        loss_on="all", streams={},
    ).write(tmp_path / "pack.json")  # fmt: skip
    monkeypatch.setattr(training_memory, "device_memory", lambda device: GIB)
    model, train = Model(**SMALL), Train(micro_batch_size=64, compile="off", precision="fp32")
    with pytest.raises(UserError, match=r"^train needs at least 5.7 GiB of memory"):
        fit_here(model, train, Runtime(), tmp_path, device="cpu")
    assert fit_here(Model(path="models/base/x.gguf"), train, Runtime(), tmp_path, device="cpu") == ""


def test_rows_of_a_pass_divide_the_rows_of_a_process() -> None:
    assert [largest_pass(12, limit) for limit in (1, 5, 8, 12, 99)] == [1, 4, 6, 12, 12]
