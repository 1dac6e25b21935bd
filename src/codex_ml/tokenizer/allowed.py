"""What a foreign tokenizer.json may hold: parts by type, ids, a vocabulary. Anything else is refused and named.

Used by: tokenizer.local_tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError

LARGEST_ID = 1 << 24
PATTERN_CHARACTERS = 4000
TYPES = {  # allowed types per part of tokenizer.json; none of them reads a file or runs code
    "model": {"BPE", "Unigram", "WordPiece", "WordLevel"},
    "normalizer": {
        "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
        "Replace", "Sequence", "Strip", "StripAccents",
    },
    "pre_tokenizer": {
        "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence",
        "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit",
    },
    "decoder": {
        "BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece",
    },
}  # fmt: skip
NESTED = {"normalizers", "pretokenizers", "decoders"}


def checked_description(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """A copy of tokenizer.json that holds only what is allowed.

    Raises:
        UserError: for a part that is not on the list, or an invalid id or vocabulary.
    """
    parts = {part: value.get(part) for part in TYPES}
    for part, found in parts.items():
        if found is None and part != "model":
            continue
        _check_types(found, part, file)
    model: dict[str, Any] = dict(value["model"])
    if model["type"] == "BPE":
        model["dropout"] = None  # BPE dropout skips merges at random
    added = value.get("added_tokens") or []
    ids = [*vocabulary_of(model, file).values(), *_added_ids(added, file)]
    if not ids or any(type(number) is not int or not 0 <= number < LARGEST_ID for number in ids):
        raise UserError(f"{file}: expected at least one token, and ids that are integers from 0 to {LARGEST_ID - 1}")
    empty = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    return {**empty, **parts, "added_tokens": added, "model": model}


def _check_types(found: Any, part: str, file: Path) -> None:
    kind = found.get("type") if isinstance(found, dict) else type(found).__name__
    if not isinstance(found, dict) or not isinstance(kind, str) or kind not in TYPES[part]:
        raise UserError(f"{file}: {part} {str(kind)[:40]!r} is not allowed; allowed: {', '.join(sorted(TYPES[part]))}")
    for key, inner in found.items():
        if key in NESTED:
            for step in inner if isinstance(inner, list) else [inner]:
                _check_types(step, part, file)
        elif key == "pattern" and isinstance(inner, dict) and len(str(inner.get("Regex", ""))) > PATTERN_CHARACTERS:
            raise UserError(
                f"{file}: a regular expression of the {part} is longer than {PATTERN_CHARACTERS} characters"
            )


def vocabulary_of(model: Any, file: Path) -> dict[str, Any]:
    """Return token -> id of the `model` of a tokenizer.json.

    Raises:
        UserError: when the vocabulary is missing, or of another form, or two tokens share an id.
    """
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):  # Unigram: [text, score], in the order of the ids
        if not all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in vocabulary):
            raise UserError(f"{file}: a piece of the vocabulary is not [text, score]")
        return {text: number for number, (text, _) in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict) or len(set(map(repr, vocabulary.values()))) != len(vocabulary):
        raise UserError(f"{file}: the vocabulary is missing, or two of its tokens share an id")
    return vocabulary


def _added_ids(added: Any, file: Path) -> list[Any]:
    good = isinstance(added, list) and all(
        isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"] for token in added
    )
    if not good:
        raise UserError(f"{file}: added_tokens is not a list of tokens with a content")
    ids = [token.get("id") for token in added]
    if len(set(map(repr, ids))) != len(ids) or len({token["content"] for token in added}) != len(added):
        raise UserError(f"{file}: two added tokens share an id or a text")
    return ids
