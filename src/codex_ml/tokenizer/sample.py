"""The documents that a tokenizer is trained or tried on: a new pass over all of them, or the first few.

Used by: the training of each kind, the import of a local tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

Texts = Callable[[], Iterable[str]]  # a new pass over the documents at every call


def sample_of(texts: Texts, *, characters: int) -> Iterator[str]:
    """The first documents, up to `characters` in all; the last one is cut."""
    left = characters
    for text in texts():
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
