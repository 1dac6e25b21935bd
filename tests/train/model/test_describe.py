"""training.json describes a model from the model and its files, for every architecture and kind of tokenizer."""

from __future__ import annotations

import hashlib
import json

import pytest

from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.train.config import Lora, Model
from codex_ml.train.model.adapters import add_adapters, trainable_parameters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.describe import describe_model, tokenizer_kind

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "layers": 3, "heads": 2, "max_positions": 40}


@pytest.fixture
def bases(tmp_path, monkeypatch):
    """The folder models/base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/base/mine").mkdir(parents=True)
    return tmp_path / "models/base"


def built(name):
    return build_model(Model(architecture=name, **SHAPE), vocab_size=64, end=0, pad=1, seed=1)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "t5"])
def test_sizes_are_those_of_the_model_and_not_of_params(name, bases):
    (bases / "mine/config.json").write_text("{}")
    other = Model(path="models/base/mine")  # its sizes are the defaults of params.yaml
    assert describe_model(built(name), other).as_json() == {
        "architecture": name, "encoder_decoder": name == "t5", "layers": 3, "hidden_size": 32, "heads": 2,
        "positions": None if name == "t5" else 40,
        "base": {"path": "models/base/mine", "sha256": folder_hash({"config.json": b"{}"})},
        "lora": None, "quantization": "none",
    }  # fmt: skip
    assert describe_model(built(name), Model(architecture=name, **SHAPE)).base is None


def folder_hash(files):
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_of_a_base_is_that_of_its_own_files_only(bases):
    for name in ("one", "two"):
        (bases / name).mkdir()
        (bases / name / "config.json").write_text(name)
    (bases / "three.gguf").write_bytes(b"GGUF")
    digests = [
        describe_model(built("gpt2"), Model(path=f"models/base/{name}")).base.sha256
        for name in ("one", "two", "three.gguf")
    ]
    assert digests == [
        folder_hash({"config.json": b"one"}), folder_hash({"config.json": b"two"}), hashlib.sha256(b"GGUF").hexdigest()
    ]  # fmt: skip


@pytest.mark.parametrize(("targets", "modules"), [(("q_proj", "v_proj"), 6), (("all-linear",), 21)])
@pytest.mark.parametrize("rank", [1, 4])
def test_adapters_are_counted(bases, targets, modules, rank):
    lora = Lora(rank=rank, alpha=8, targets=targets)
    model = add_adapters(built("llama"), lora, seed=1)
    found = describe_model(model, Model(path="models/base/mine", lora=lora)).as_json()
    trained = sum(p.numel() for p in trainable_parameters(model).values())
    assert found["lora"] == {"rank": rank, "alpha": 8.0, "modules": modules, "trained": trained}
    assert (found["layers"], found["hidden_size"], found["positions"]) == (3, 32, 40)
    if targets == ("q_proj", "v_proj"):
        assert trained == 3 * 2 * rank * (32 + 32)  # layers x targets x rank x (in + out)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("byte_bpe", "byte-level BPE"),
        ("unigram", "byte-level Unigram"),
        ("wordpiece", "WordPiece"),
        ("whitespace", "word-level vocabulary"),
        ("sentencepiece_bpe", "BPE with byte fallback"),
        ("sentencepiece_unigram", "Unigram with byte fallback"),
    ],
)
def test_the_kind_of_a_tokenizer_is_read_from_its_file(tmp_path, kind, name):
    texts = [f"def function_{i}(value):\n    return value + {i}\n" for i in range(60)]
    train_tokenizer(lambda: iter(texts), Tokenizer(kind=kind, vocab_size=400), tmp_path)
    assert tokenizer_kind(tmp_path) == name


def test_a_plain_bpe_without_bytes_is_called_so(tmp_path):
    description = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "decoder": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    assert tokenizer_kind(tmp_path) == "BPE"
