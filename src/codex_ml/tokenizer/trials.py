"""Try a foreign tokenizer in a limited child process, where it can do no harm.

A vocabulary or a regular expression can make a tokenizer run for hours, use all memory, or crash. See
`codex_ml.core.child.LimitedChild`. Used by: tokenizer.local_tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.tokenizer.sentencepiece_file import read_model
from codex_ml.tokenizer.sentencepiece_model import prove_equal, to_tokenizer


def tokenizer_trial() -> Callable[[dict[str, Any]], list[list[int]]]:
    """Import what `try_tokenizer` needs, and return `try_tokenizer`."""
    import tokenizers  # noqa: F401

    return try_tokenizer


def sentencepiece_trial() -> Callable[[dict[str, Any]], None]:
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


def try_sentencepiece(request: dict[str, Any]) -> None:
    """Convert the .model `file` to the tokenizer.json `to`, and prove on `texts` that both give the same ids."""
    data = Path(request["file"]).read_bytes()
    tokenizer = to_tokenizer(read_model(data, Path(request["name"])))
    prove_equal(tokenizer, data, request["texts"])
    tokenizer.save(request["to"])
