"""A tokenizer with the interface of `codex_ml.tokens` that is easy to compute by hand: id = byte + 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import numpy as np

from codex_ml.core.errors import UserError

END, PAD, FIRST = 0, 1, 2


class ByteTokenizer:
    begin, end, pad, bos = END, END, PAD, None
    vocab_size = FIRST + 256
    added_pieces: tuple[list[int], ...] = ()
    special = {"<end>": END, "<pad>": PAD}  # noqa: RUF012

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32) + FIRST

    def encode_documents(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        return map(self.encode, texts)

    def decode(self, ids: np.ndarray) -> str:
        names = {END: "<end>", PAD: "<pad>"}
        out, run = "", bytearray()
        for token in [*np.asarray(ids).tolist(), None]:
            if token in names or token is None:
                out, run = out + run.decode("utf-8", "replace") + names.get(token, ""), bytearray()
            else:
                run.append(token - FIRST)
        return out


def encode_conversation(tokenizer, messages, tools):
    """`<role:content>` for each message, `<end>` behind what an assistant said; that and its words are trained."""
    if tokenizer.chat_template is None:
        raise UserError("the tokenizer has no chat template")
    ids, trained = [], []
    for message in messages:
        said = message["role"] == "assistant"
        for part, learnt in ((f"<{message['role']}:", False), (f"{message['content']}>", said)):
            encoded = tokenizer.encode(part).tolist()
            ids, trained = ids + encoded, trained + [learnt] * len(encoded)
        if said:
            ids, trained = [*ids, END], [*trained, True]
    return SimpleNamespace(ids=np.array(ids, dtype=np.uint32), trained=np.array(trained, dtype=bool))


def turn_ends(tokenizer):
    """What ends an answer of `encode_conversation`."""
    return [END]
