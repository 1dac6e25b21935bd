"""Ids of a text that goes on from other text, where the border has to stay a border of tokens.

`encode` takes a text for the begin of a document: SentencePiece's rules put a blank before it. Used by: pack, for
completions and chats.
"""

from __future__ import annotations

from collections.abc import Sequence

from codex_ml.core.errors import UserError
from codex_ml.tokens.engine import panics_as_errors
from codex_ml.tokens.text_tokenizer import TextTokenizer

ANCHORS = ("\n", ".", "a", "\u4e2d")  # texts of few tokens, which some tokenizers join to what follows


Token = tuple[int, int, int]  # id, and where it begins and ends in characters of the text


def encode_begin(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of a text that begins a document; what it spells is data."""
    with panics_as_errors():
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    return [(number, *place) for number, place in zip(encoding.ids, encoding.offsets, strict=True)]


def encode_after_text(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of `text` after other text, none of them shared with it.

    Raises:
        UserError: when the tokenizer joins every anchor to `text`, so that nothing shows how it cuts there.
    """
    if not text:
        return []
    dropped: list[Token] | None = None
    for anchor in ANCHORS:
        before, whole = encode_begin(tokenizer, anchor), encode_begin(tokenizer, anchor + text)
        joined = any(end > len(anchor) for _, _, end in whole[: len(before)])  # such as one unknown word of both
        if _ids(whole[: len(before)]) != _ids(before) or joined:
            continue
        rest = [(number, max(start - len(anchor), 0), end - len(anchor)) for number, start, end in whole[len(before) :]]
        if before:
            return rest
        dropped = dropped or rest  # white space without ids: the blanks that follow may be dropped with it
    if dropped is not None:
        return dropped
    raise UserError("the tokenizer joins a prompt to the answer that follows, whatever it is; use another tokenizer")


def encode_after_control(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of `text` right after a special token, as transformers gives them; what `text` spells is data.

    Raises:
        UserError: when the tokenizer cuts there in a way of its own.
    """
    end = next(name for name, number in tokenizer.special.items() if number == tokenizer.end)
    follows = with_control(tokenizer, f"{end}a")[1:]
    for encode in (encode_begin, encode_after_text):
        if follows == _ids(encode(tokenizer, "a")):
            return encode(tokenizer, text)
    raise UserError("the tokenizer cuts a text after a special token as it cuts it nowhere else; use another one")


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token[0] for token in tokens]


def with_control(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Ids of a text in which special tokens are control, as transformers gives them."""
    backend = tokenizer.backend
    backend.encode_special_tokens = False
    try:
        with panics_as_errors():
            return list(backend.encode(text, add_special_tokens=False).ids)
    finally:
        backend.encode_special_tokens = True


def is_changed_by_joining(tokenizer: TextTokenizer) -> bool:
    """Whether two texts, encoded apart as documents are, are another text when their ids follow each other."""
    once = tokenizer.encode("a").tolist()
    return tokenizer.decode([*once, *once]) != "aa"
