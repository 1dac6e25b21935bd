"""The documents on which a tokenizer is trained or tried: a new pass over all of them, or the first few.

Used by: tokenizer.training, tokenizer.local_tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

Texts = Callable[[], Iterable[str]]  # each call starts a new pass over the documents


def sample_of(texts: Texts, *, characters: int) -> Iterator[str]:
    """The first documents, up to `characters` in total. The last document is cut there."""
    left = characters
    for text in texts():
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
