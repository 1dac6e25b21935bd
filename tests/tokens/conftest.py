"""The tokenizers that the tests of `tokenizer` train."""

from __future__ import annotations

from ..tokenizer.conftest import CORPUS, END, LOSSLESS, PAD, TRAINED, loaded, trained

__all__ = ["CORPUS", "END", "LOSSLESS", "PAD", "TRAINED", "loaded", "trained"]
