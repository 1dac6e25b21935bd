"""Try a foreign tokenizer in a limited child process, where it can do no harm.

A vocabulary or a regular expression can make a tokenizer run for hours, use all memory, or crash. See
`codex_ml.core.child.LimitedChild`. Used by: tokenizer.local_tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.tokenizer.sentencepiece_file import CONTROL, UNKNOWN, read_model
from codex_ml.tokenizer.sentencepiece_model import prove_equal, to_tokenizer


def tokenizer_trial() -> Callable[[dict[str, Any]], list[list[int]]]:
    """Import what `try_tokenizer` needs, and return `try_tokenizer`."""
    import tokenizers  # noqa: F401

    return try_tokenizer


def sentencepiece_trial() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Import what `try_sentencepiece` needs, and return `try_sentencepiece`."""
    import sentencepiece  # noqa: F401
    import tokenizers  # noqa: F401

    return try_sentencepiece


def try_tokenizer(request: dict[str, Any]) -> list[list[int]]:
    """Load the tokenizer.json `file`, encode `texts`, and decode the ids; return the ids per text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(request["file"])
    tokenizer.encode_special_tokens = True
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in request["texts"]]
    for numbers in ids:
        tokenizer.decode(numbers, skip_special_tokens=False)
    return ids


def try_sentencepiece(request: dict[str, Any]) -> dict[str, Any]:
    """Convert the .model `file` to the tokenizer.json `to`, and prove on `texts` that both give the same ids.

    Returns:
        control: the texts of the control pieces. unknown: the text of the unknown piece.
    """
    data = Path(request["file"]).read_bytes()
    model = read_model(data, Path(request["name"]))
    tokenizer = to_tokenizer(model)
    prove_equal(tokenizer, data, request["texts"])
    tokenizer.save(request["to"])
    return {
        "control": [text for text, _, kind in model.pieces if kind == CONTROL],
        "unknown": next(text for text, _, kind in model.pieces if kind == UNKNOWN),
    }
