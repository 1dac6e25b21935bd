from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from .byte_tokenizer import encode_conversation, turn_ends


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat messages become tokens as `byte_tokenizer.encode_conversation` says."""
    made = SimpleNamespace(encode_conversation=encode_conversation, turn_ends=turn_ends)
    monkeypatch.setitem(sys.modules, "codex_ml.tokens.chat", made)
