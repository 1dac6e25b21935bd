"""The model folder is what any other tool expects: equal for equal seeds, loadable, without a byte too many."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from codex_ml.config import Model
from codex_ml.config.text import Tokenizer
from codex_ml.errors import UserError
from codex_ml.modeling.build import build_model, parameter_count
from codex_ml.tokenization.tokenizer import load_tokenizer
from codex_ml.tokenization.train import train_tokenizer

SHAPE = Model(hidden_size=16, intermediate_size=24, layers=2, heads=2, max_positions=32)
TEXT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def build():
    def build(*, vocab_size=64, end=0, pad=1, seed=1):
        return build_model(SHAPE, vocab_size=vocab_size, end=end, pad=pad, seed=seed).eval()

    return build


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before(build):
    first = build(seed=7)
    torch.rand(3)
    second, other = build(seed=7), build(seed=8)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == ("norm" in name), name


def test_parameters_are_counted_by_hand(build):
    embedding, attention, feed_forward, norms = 64 * 16, 4 * 16 * 16, 3 * 16 * 24, 2 * 16
    assert parameter_count(build()) == embedding + 2 * (attention + feed_forward + norms) + 16


def test_weights_are_small_float32_normals(build):
    embedding = build(vocab_size=4096).get_input_embeddings().weight.detach()
    assert embedding.dtype == torch.float32
    assert float(embedding.mean()) == pytest.approx(0, abs=4 * 0.02 / 65536**0.5)  # four standard errors
    assert float(embedding.std()) == pytest.approx(0.02, abs=4 * 0.02 / (2 * 65536) ** 0.5)


@pytest.mark.parametrize(("end", "pad"), [(64, 1), (0, 64), (100, 100)])
def test_special_tokens_outside_the_vocabulary_are_refused(build, end, pad):
    with pytest.raises(UserError, match=f"special tokens {end} and {pad} lie outside its 64 tokens"):
        build(end=end, pad=pad)


def test_tied_embedding_is_saved_once(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
        sizes = sum(file.get_tensor(name).numel() for name in names)
    assert names == {name for name, _ in model.named_parameters()}
    assert "lm_head.weight" not in names
    assert sizes == parameter_count(model)


def test_saved_folder_has_no_code_and_is_equal_each_time(build, tmp_path):
    for name in ("one", "two"):
        build().save_pretrained(tmp_path / name)
    files = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()} == files
    assert set(files) == {"config.json", "generation_config.json", "model.safetensors"}
    config = json.loads(files["config.json"])
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 0, 1)


def test_auto_class_loads_it_with_equal_logits(build, tmp_path):
    from transformers import AutoModelForCausalLM

    model = build()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    tokens = torch.arange(2, 30).reshape(2, 14)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_text_generation_pipeline_works_offline(build, tmp_path, monkeypatch):
    """The pipeline's greedy text is that of a loop over argmax, with our own tokenizer."""
    import huggingface_hub.constants
    from transformers import pipeline

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was opened"))
    train_tokenizer(lambda: [TEXT], Tokenizer(vocab_size=280), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    model = build(vocab_size=tokenizer.vocab_size)
    model.save_pretrained(tmp_path)

    generate = pipeline("text-generation", model=str(tmp_path), trust_remote_code=False)
    prompt = "def add(a"
    [found] = generate(prompt, max_new_tokens=6, do_sample=False)

    ids = tokenizer.encode(prompt).tolist()
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == model.config.eos_token_id:
            break
    assert found["generated_text"] == tokenizer.decode(ids)
