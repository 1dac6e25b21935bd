from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

VOCAB = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """A model of 64 tokens: `tiny("gpt2", kv_heads=...)`."""

    def build(architecture: str = "llama", *, seed: int = 1, attention: str = "eager", **shape: Any) -> Any:
        from codex_ml.train.config import Model
        from codex_ml.train.model.build import build_model

        sizes = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "max_positions": 64}
        model = Model(architecture=architecture, **{**sizes, **shape})
        return build_model(model, vocab_size=VOCAB, end=0, pad=1, seed=seed, attention=attention).eval()

    return build


@pytest.fixture
def folder(tiny: Callable[..., Any], tmp_path: Path) -> Path:
    """A Llama in the Hugging Face layout."""
    path = tmp_path / "base"
    tiny().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def raw_safetensors() -> Callable[..., bytes]:
    """Bytes of a safetensors file with any header: `raw_safetensors(header, data)`; the header is a dict or a JSON text."""

    def make(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    return make
