"""The tokenizers that the tests of `tokenizer` train."""

from __future__ import annotations

from ..tokenizer.conftest import loaded, trained

__all__ = ["loaded", "trained"]
