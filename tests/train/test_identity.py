"""Every key of `model` and `pack` that changes what is trained, or on what, changes the identity of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.config import Runtime
from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.hardware import Hardware
from codex_ml.modeling.rows import Rows
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.train import identity
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.model.build import build_model
from codex_ml.train.recipe import OptimizerPlan, Recipe

from ..pack.byte_tokenizer import ByteTokenizer

SHAPE = {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2, "max_positions": 32}
ADAPTER = {"rank": 2, "targets": ("q_proj",)}
# key of `model` -> another value, and the part of the identity that differs
MODEL = {
    "architecture": ("qwen2", "model.model_type"),
    "hidden_size": (32, "model.hidden_size"),
    "intermediate_size": (32, "model.intermediate_size"),
    "layers": (2, "model.num_hidden_layers"),
    "heads": (4, "model.num_attention_heads"),
    "kv_heads": (1, "model.num_key_value_heads"),
    "max_positions": (64, "model.max_position_embeddings"),
    "tie_embeddings": (False, "model.tie_word_embeddings"),
    "dropout": (0.1, "model.attention_dropout"),
}
# preset is a name for the others; path: the weights under an adapter, below; lora: test_resume_from.py; quantization
# changes the bytes of the weights under an adapter
ELSEWHERE = {"preset", "path", "lora", "quantization"}
PACK = {
    "seq_len": 24,
    "layout": "padded",
    "loss_on": "all",
    "too_long": "drop",
    "template": "alpaca",
    "canaries": {"plant": "always", "repetitions": [1], "each": [1], "controls": 1},
}
DOCUMENTS = [
    Document("s", f"{n}.txt", f"t{n}", "", "MIT", "text", text=f"{n} plain text of some length " * 2) for n in range(9)
] + [Document("s", "", f"r{n}", "", "MIT", "text", prompt=f"{n}?", completion=" answer" * n) for n in range(9)]


def build(**changes: Any) -> Any:
    return build_model(Model(**{**SHAPE, **changes}), vocab_size=64, end=0, pad=1, seed=1)


def packed(folder: Path, **changes: Any) -> tuple[Rows, Rows]:
    files = {name: folder / f"{name}.parquet" for name in ("train", "val", "test")}
    folder.mkdir()
    for file in files.values():
        write_documents(file, DOCUMENTS)
    pack_splits(folder, files, ByteTokenizer(), Pack(**{"seq_len": 48, **changes}), kind="byte_bpe", style="off")
    return Rows.open(folder, "train"), Rows.open(folder, "val")


def identity_of(model: Any, streams: tuple[Rows, Rows]) -> identity.Identity:
    hardware = Hardware("cpu", "fp32", compile=False, threads=1, capability="test")
    return identity.identity_of(
        model, Recipe(Train(), OptimizerPlan("adamw", 1e-3), Runtime(), hardware, 1, *streams, tokenizer="")
    )


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> tuple[Rows, Rows]:
    return packed(tmp_path_factory.mktemp("packed") / "rows")


def test_every_key_has_a_case():
    assert {*MODEL, *ELSEWHERE} == set(Model.model_fields)
    # dtype changes nothing, below; bad_chats leaves chats out: fewer rows, as too_long does
    assert {*PACK, "dtype", "bad_chats"} == set(Pack.model_fields)


@pytest.mark.parametrize("key", MODEL)
def test_every_key_of_model_is_named(streams, key):
    value, name = MODEL[key]
    before = identity_of(build(), streams)
    changed = identity.differences(before, identity_of(build(**{key: value}), streams), "fixed")
    assert name in changed
    assert set(changed) <= set(before["fixed"]) | {part for part in changed if part.startswith("model.")}
    assert identity.differences(before, identity_of(build(), streams), "fixed") == {}


@pytest.mark.parametrize("key", PACK)
def test_every_key_of_pack_changes_the_rows(streams, tmp_path, key):
    before = identity_of(build(), streams)
    now = identity_of(build(), packed(tmp_path / "rows", **{key: PACK[key]}))
    assert "train rows (data/packed)" in identity.differences(before, now, "fixed")
    assert bool(identity.differences(before, now, "measured")) == (key != "canaries")  # those are in train only
    assert ("pack.seq_len" in identity.differences(before, now, "fixed")) == (key == "seq_len")


def test_the_width_of_ids_on_the_disk_changes_nothing(streams, tmp_path):
    assert identity_of(build(), packed(tmp_path / "rows", dtype="uint32")) == identity_of(build(), streams)


def test_weights_that_are_all_trained_are_the_checkpoints_own(streams):
    one, other = (build_model(Model(**SHAPE), vocab_size=64, end=0, pad=1, seed=seed) for seed in (1, 2))
    assert identity_of(one, streams) == identity_of(other, streams)
    adapted = [add_adapters(model, Lora(**ADAPTER), seed=1) for model in (one, other)]
    before, now = (identity_of(model, streams) for model in adapted)
    assert set(identity.differences(before, now, "fixed")) == {"weights of the base model"}


def test_a_message_is_short():
    long = {str(n): {"before": "x" * 500, "now": "a" * 64} for n in range(9)}
    assert identity.shown(long) == (
        ", ".join(f"{n} is SHA-256 {'a' * 12} and was {'x' * 57}..." for n in range(3)) + ", and 6 more"
    )


def test_an_adapter_of_an_earlier_version_trained_no_bias(streams):
    """Its identity does not name the key."""
    adapted = [
        add_adapters(build(architecture="qwen2"), Lora(**ADAPTER, bias=bias), seed=1) for bias in ("none", "lora_only")
    ]
    before, other = (identity_of(model, streams) for model in adapted)
    earlier = {**before, "fixed": {key: value for key, value in before["fixed"].items() if key != "model.lora.bias"}}
    assert identity.differences(earlier, before, "fixed") == {}
    assert identity.differences(earlier, other, "fixed")["model.lora.bias"] == {"before": "none", "now": "lora_only"}
