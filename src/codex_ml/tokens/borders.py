"""Ids of a text that continues another text, if no token may cross the border between the two.

`encode` treats a text as the beginning of a document: SentencePiece's rules put a space before it, and `decode` removes
it. Used by: pack, for completions, generation and tokens.chat.
"""

from __future__ import annotations

from collections.abc import Sequence

from codex_ml.core.errors import UserError
from codex_ml.tokens.engine import panics_as_errors
from codex_ml.tokens.text_tokenizer import TextTokenizer

ANCHORS = ("\n", ".", "a", "\u4e2d")  # short texts to put before; some tokenizers join one or the other to what follows
ANCHOR_TOKENS = 16  # more than a run of bytes, which is decoded as a whole, usually has

Token = tuple[int, int, int]  # id, and the half-open span of the token in characters of the text


def encode_begin(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of a text that begins a document. Special tokens that it spells are data."""
    with panics_as_errors():
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    return [(number, *place) for number, place in zip(encoding.ids, encoding.offsets, strict=True)]


def encode_after_text(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of `text` when it follows other text and no token crosses the border.

    The text is encoded after an anchor, and the anchor's tokens are removed.

    Raises:
        UserError: when the tokenizer joins every anchor to `text`.
    """
    if not text:
        return []
    dropped: list[Token] | None = None
    for anchor in ANCHORS:
        before, whole = encode_begin(tokenizer, anchor), encode_begin(tokenizer, anchor + text)
        joined = any(end > len(anchor) for _, _, end in whole[: len(before)])  # such as one unknown token for both
        if _ids(whole[: len(before)]) != _ids(before) or joined:
            continue
        rest = [(number, max(start - len(anchor), 0), end - len(anchor)) for number, start, end in whole[len(before) :]]
        if before:
            return rest
        # The tokenizer drops the anchor, so it may drop white space at the start of `text` too: the last choice.
        dropped = dropped or rest
    if dropped is not None:
        return dropped
    raise UserError("the tokenizer always joins a prompt to the answer that follows it; use another tokenizer")


def encode_after_control(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """Tokens of `text` right after a special token, as transformers gives them. Special tokens in `text` are data.

    Raises:
        UserError: when the tokenizer encodes there neither as at the beginning of a document nor as after text.
    """
    end = next(name for name, number in tokenizer.special.items() if number == tokenizer.end)
    follows = with_control(tokenizer, f"{end}a")[1:]
    for encode in (encode_begin, encode_after_text):
        if follows == _ids(encode(tokenizer, "a")):
            return encode(tokenizer, text)
    raise UserError(
        "after a special token the tokenizer encodes text neither as at the beginning of a document nor as after other "
        "text; use another tokenizer"
    )


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token[0] for token in tokens]


def with_control(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Ids of a text, as transformers gives them: special tokens that the text spells are control."""
    backend = tokenizer.backend
    backend.encode_special_tokens = False
    try:
        with panics_as_errors():
            return list(backend.encode(text, add_special_tokens=False).ids)
    finally:
        backend.encode_special_tokens = True


def is_changed_by_joining(tokenizer: TextTokenizer) -> bool:
    """Whether joining the ids of two texts, each encoded as a document, decodes to more than the joined texts."""
    once = tokenizer.encode("a").tolist()
    return tokenizer.decode([*once, *once]) != "aa"


def decode_after(tokenizer: TextTokenizer, before: Sequence[int], ids: Sequence[int]) -> str:
    """Text of `ids` where they follow the tokens `before`. After a special token they are a text of their own."""
    special = set(tokenizer.special.values())
    anchor = list(before[-ANCHOR_TOKENS:])
    last = max((place for place, number in enumerate(anchor) if number in special), default=-1)
    lead, whole = tokenizer.decode(anchor[last + 1 :]), tokenizer.decode([*anchor[last + 1 :], *ids])
    return (
        whole[len(lead) :] if lead and whole.startswith(lead) else tokenizer.decode(ids)
    )  # no: they share a character
