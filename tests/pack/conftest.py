from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from .byte_tokenizer import encode_chat, turn_ends


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat messages become tokens as `byte_tokenizer.encode_chat` says."""
    monkeypatch.setitem(
        sys.modules, "codex_ml.tokens.chat", SimpleNamespace(encode_chat=encode_chat, turn_ends=turn_ends)
    )
