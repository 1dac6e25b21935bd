"""A byte-level n-gram model: the baseline beside the model's bits per byte. Used by: evaluate/documents.py.

Interpolation of Witten and Bell 1991 (method C; Chen and Goodman 1998, section 2.4), which has no parameter to fit.
For a context h with N(h) bytes seen after it, of which T(h) are different, and h' one byte shorter:

    p(c | h) = (count(h c) + T(h) p(c | h')) / (N(h) + T(h)),    p(c | h) = p(c | h') where h was never seen,

down to the uniform 1/256 below the empty context. So the model is a proper distribution over bytes, and no byte costs
infinitely many bits. Each document starts from an empty context; the end of a document is not predicted.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Codes: TypeAlias = NDArray[np.uint64]

HIGHEST_ORDER = 8  # the bytes of an n-gram fill one uint64
TRAIN_BYTES = 16 << 20  # peak of memory per byte: 24 bytes for source code, 70 for random text (all n-grams differ)
SCORED_BYTES = 1 << 20  # scored at once, so that a long document needs no more memory than a short one
BYTES = 256


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of one length that occur in the train text.

    Attributes:
        codes: (g,) uint64, ascending: the bytes of each n-gram as a number, the last byte lowest.
        counts: (g,) uint32, occurrences.
        totals: (g,) uint32, bytes seen after it; the end of a document is none.
        kinds: (g,) uint16, how many of these bytes are different.
    """

    codes: Codes
    counts: NDArray[np.uint32]
    totals: NDArray[np.uint32]
    kinds: NDArray[np.uint16]


@dataclass(frozen=True)
class NgramModel:
    """A trained n-gram model.

    Attributes:
        tables: one per length of n-gram, 0 (the empty one) to `order`.
        documents, train_bytes: the train text that was counted.
    """

    tables: tuple[NgramTable, ...]
    documents: int
    train_bytes: int

    @property
    def order(self) -> int:
        """Return the length of the longest n-gram: context and predicted byte, in bytes."""
        return len(self.tables) - 1

    @property
    def signature(self) -> str:
        """Return what the number depends on, in one line."""
        return (
            f"order:{self.order}|smoothing:witten-bell|train_documents:{self.documents}|train_bytes:{self.train_bytes}"
        )

    def bits(self, text: str, context: str = "") -> float:
        """Return -log2 p of the UTF-8 bytes of `text`; `context` stands before it and costs nothing."""
        before = context.encode("utf-8")[-self.order :]
        data, total = before + text.encode("utf-8"), 0.0
        for start in range(len(before), len(data), SCORED_BYTES):
            first = max(0, start - self.order + 1)  # no context reaches further back
            total += float(self.byte_bits(data[first : start + SCORED_BYTES])[start - first :].sum())
        return total

    def byte_bits(self, data: bytes) -> NDArray[np.float64]:
        """Return -log2 p (n,) of each byte of a document, given the bytes before it."""
        values = np.frombuffer(data, dtype=np.uint8)
        probability = np.full(len(values), 1 / BYTES)
        codes = np.zeros(len(values), dtype=np.uint64)
        context = np.zeros(len(values), dtype=np.int64)  # row in the table of the context; -1: never seen
        for length in range(1, self.order + 1):
            start = length - 1  # the first byte that has a context of this length
            if start >= len(values):
                break
            _extend(codes, values, length)
            shorter, table = self.tables[length - 1], self.tables[length]
            rows = _find(table.codes, codes[start:])
            seen = np.flatnonzero(context >= 0)
            total = shorter.totals[context[seen]].astype(np.float64)
            kinds = shorter.kinds[context[seen]].astype(np.float64)
            count = np.zeros(len(rows))
            count[rows >= 0] = table.counts[rows[rows >= 0]]
            # a context that only ends documents has no byte after it, and says nothing
            known = np.flatnonzero(kinds > 0)
            at = seen[known] + start
            mass = count[seen[known]] + kinds[known] * probability[at]
            probability[at] = mass / (total[known] + kinds[known])
            # the n-gram that ends at one byte is the context of the next byte
            context = rows[:-1]
        return -np.log2(probability)


def train_ngram(texts: Iterable[str], order: int, *, limit: int = TRAIN_BYTES) -> NgramModel:
    """Count the n-grams of texts, of at most `limit` bytes of them.

    If the texts are longer, those with the smallest hashes are counted: a random choice that does not depend on their
    order. Of a text longer than `limit` the first `limit` bytes are used.

    Raises:
        ValueError: unless 1 <= order <= `HIGHEST_ORDER`.
    """
    if not 1 <= order <= HIGHEST_ORDER:
        raise ValueError(f"an n-gram model of order {order}; it must be between 1 and {HIGHEST_ORDER}")
    chosen = _choose(texts, limit)
    sizes = np.array([len(data) for data in chosen], dtype=np.int64)
    values = np.frombuffer(b"".join(chosen), dtype=np.uint8)
    del chosen
    depth = _depth(sizes, order)
    codes = np.zeros(len(values), dtype=np.uint64)
    tables = []
    grams, counts = np.zeros(1, dtype=np.uint64), np.array([len(values)], dtype=np.uint32)
    for length in range(1, order + 1):
        _extend(codes, values, length)
        longer, longer_counts = _count(codes[depth >= length])
        tables.append(_table(grams, counts, longer, longer_counts))
        grams, counts = longer, longer_counts
    tables.append(_table(grams, counts, np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32)))
    return NgramModel(tuple(tables), documents=len(sizes), train_bytes=len(values))


def _choose(texts: Iterable[str], limit: int) -> list[bytes]:
    """Return the texts of the smallest hashes that fit into `limit` bytes in all, in the order of their hashes."""
    pool: list[tuple[int, bytes]] = []  # a heap by negated hash: the largest hash is first
    held, ceiling = 0, 1 << 64
    for text in texts:
        data = text.encode("utf-8")[:limit]
        key = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        if key >= ceiling or not data:
            continue
        heapq.heappush(pool, (-key, data))
        held += len(data)
        while held > limit:
            negated, dropped = heapq.heappop(pool)
            ceiling, held = -negated, held - len(dropped)
    return [data for _, data in sorted(pool, reverse=True)]


def _depth(sizes: NDArray[np.int64], order: int) -> NDArray[np.uint8]:
    """Return (n,) for each byte the length of the longest n-gram that ends there inside its document, up to `order`."""
    starts = np.cumsum(sizes) - sizes
    depth = np.full(int(sizes.sum()), order, dtype=np.uint8)
    for offset in range(order - 1):
        depth[starts[sizes > offset] + offset] = offset + 1
    return depth


def _extend(codes: Codes, values: NDArray[np.uint8], length: int) -> None:
    """Turn the codes of n-grams of `length` - 1 bytes into those of `length` bytes, in place."""
    earlier = values[: len(values) - length + 1].astype(np.uint64)
    earlier <<= np.uint64(8 * (length - 1))
    codes[length - 1 :] |= earlier


def _count(codes: Codes) -> tuple[Codes, NDArray[np.uint32]]:
    """Return the different codes in ascending order, and how often each occurs. Sorts `codes` in place."""
    codes.sort()
    first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else np.zeros(0, np.int64)
    return codes[first], np.diff(first, append=len(codes)).astype(np.uint32)


def _table(grams: Codes, counts: NDArray[np.uint32], longer: Codes, longer_counts: NDArray[np.uint32]) -> NgramTable:
    """Return the table of n-grams; `longer` are those of one more byte, each a continuation of its first bytes."""
    # Both are ascending, so the continuations of one n-gram lie side by side.
    edges = np.searchsorted(longer >> np.uint64(8), np.append(grams, grams[-1:] + np.uint64(1)))
    sums = np.concatenate([[0], np.cumsum(longer_counts, dtype=np.int64)])
    starts, ends = edges[:-1], edges[1:]
    return NgramTable(grams, counts, (sums[ends] - sums[starts]).astype(np.uint32), (ends - starts).astype(np.uint16))


def _find(codes: Codes, wanted: Codes) -> NDArray[np.int64]:
    """Return the row of each wanted code in the ascending codes, or -1."""
    unique, index = np.unique(wanted, return_inverse=True)  # sorted keys are looked up several times as fast
    rows = np.searchsorted(codes, unique)
    rows[rows == len(codes)] = 0
    return np.where(codes[rows] == unique, rows, -1)[index] if len(codes) else np.full(len(wanted), -1)
