"""The kinds of input that are mutated: how one is made, and the function of ours that reads it.

A `Kind` has small valid inputs as seeds. `read` is what a stage or a command calls for such a file, or what it calls in
its limited child; it returns whether the input was accepted, and raises UserError or CheckFailed for a refusal. Any
other exception is a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .document_kinds import csv_kind, jsonl_kind, parquet_kind, tar_kind, wheel_kind, zip_kind
from .kind import Kind
from .model_kinds import config_kind, gguf_kind, index_kind, safetensors_kind
from .tokenizer_kinds import protobuf_kind, sentencepiece_kind, template_kind, tokenizer_kind

KINDS: dict[str, Callable[[Path], Kind]] = {
    "protobuf": protobuf_kind,
    "sentencepiece": sentencepiece_kind,
    "tokenizer": tokenizer_kind,
    "template": template_kind,
    "safetensors": safetensors_kind,
    "index": index_kind,
    "config": config_kind,
    "gguf": gguf_kind,
    "jsonl": jsonl_kind,
    "csv": csv_kind,
    "parquet": parquet_kind,
    "zip": zip_kind,
    "tar": tar_kind,
    "wheel": wheel_kind,
}


def kind_named(name: str, folder: Path) -> Kind:
    """Make the seeds of a kind below `folder`, an empty one that stays."""
    return KINDS[name](folder)
