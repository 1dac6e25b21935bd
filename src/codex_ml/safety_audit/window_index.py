"""Where windows of tokens occur in the train stream: how often, where first, and the longest run that a text copies.

The index is built over the windows that are looked for, and the stream passes by it once, in chunks. So memory follows
the windows, not the stream, and nothing has to be stored. A window is found by a 64-bit hash, and each hit is compared
token by token, so the answers are exact. The hash is polynomial, modulo 2^64 (Karp and Rabin 1987): with prefix sums
H[i] = sum over j < i of m(t[j]) B^j, the window of w tokens at i has the hash (H[i + w] - H[i]) B^-i for any w. B is
odd, so it has an inverse. The mixer m spreads the token ids over 64 bits.

A window is equal tokens, END included. A text that a model wrote holds no END, and the stream has one between two
documents, so a run that it copies lies in one document.

Used by: the parts generated and memorisation of safety_audit.

>>> stream = np.array([0, 5, 6, 7, 8, 0, 6, 7, 9, 0])
>>> [place.tolist() for place in occurrences(stream, [[6, 7], [7, 9], [9, 9]])]
[[2, 1, 0], [2, 7, -1]]
>>> longest_runs(stream, [[3, 5, 6, 7, 9]], at_least=2)
[CopiedRun(length=3, place=1, position=1)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Hashes: TypeAlias = NDArray[np.uint64]
Places: TypeAlias = NDArray[np.int64]
Passes: TypeAlias = Callable[[range], Iterable[int]]

CHUNK = 1 << 18  # tokens of the stream that are hashed at once: 2 MiB per array, which stays in the cache
COMPARED = 1 << 20  # tokens that are compared at once
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 2**64)
HASH_BITS = 64
FILTER_BITS = 18  # 256 KiB of flags say of most windows of the stream that none of those looked for has their hash


@dataclass(frozen=True)
class CopiedRun:
    """Neighbouring tokens of a text that occur in the stream in the same order.

    Attributes:
        length: in tokens.
        place: offset of the first of them in the text.
        position: offset in the stream of the first place that holds them.
    """

    length: int
    place: int
    position: int


def occurrences(stream: NDArray[np.integer], windows: Sequence[ArrayLike]) -> tuple[Places, Places]:
    """Count how often each window occurs in the stream, overlapping ones included.

    Args:
        stream: (n,) token ids, such as `Rows.tokens`; may be a memory map.
        windows: token ids, at least one in each; their widths may differ.

    Returns:
        (counts, positions): (len(windows),) int64 each; a position is the offset of the first occurrence, -1 if there
        is none.
    """
    arrays = [np.asarray(window, dtype=np.int64) for window in windows]
    widths = np.array([len(array) for array in arrays], dtype=np.int64)
    offsets = np.cumsum(widths) - widths
    return _occurrences(stream, np.concatenate([*arrays, np.zeros(0, np.int64)]), offsets, widths)


def longest_runs(
    stream: NDArray[np.integer], texts: Sequence[ArrayLike], *, at_least: int, track: Passes = iter
) -> list[CopiedRun | None]:
    """Find the longest run of tokens of each text that occurs in the stream.

    If a run of n tokens occurs there, so does one of n - 1. So the length is searched by halving, for all texts in the
    same pass over the stream; one pass per bit of the longest text.

    Args:
        texts: token ids.
        at_least: shorter runs do not count; at least 1.
        track: iterates over the passes and may show the progress.

    Returns:
        per text the run, the earliest of equal length; None if there is no run of `at_least` tokens.
    """
    arrays = [np.asarray(text, dtype=np.int64) for text in texts]
    ids = np.concatenate([*arrays, np.zeros(0, np.int64)])
    begins = np.cumsum([0, *(len(array) for array in arrays)])
    longest: list[CopiedRun | None] = [None] * len(arrays)
    limits = {number: (at_least, len(array)) for number, array in enumerate(arrays) if len(array) >= at_least}
    width = dict.fromkeys(limits, at_least)  # most texts have no run at all, so the shortest one is tried first
    widest = max((len(arrays[text]) for text in limits), default=at_least)
    for _ in track(range(1 + (widest - at_least).bit_length())):
        if not limits:
            break
        places = [np.arange(begins[text], begins[text + 1] - width[text] + 1) for text in limits]
        widths = np.repeat(list(width.values()), [len(offsets) for offsets in places])
        _, positions = _occurrences(stream, ids, np.concatenate(places), widths)
        stops = np.cumsum([len(offsets) for offsets in places])
        for text, found in zip(list(limits), np.split(positions, stops[:-1]), strict=True):
            low, high = limits[text]
            if (found >= 0).any():
                first = int(np.argmax(found >= 0))
                longest[text] = CopiedRun(width[text], first, int(found[first]))
                low = width[text] + 1
            else:
                high = width[text] - 1
            limits[text] = (low, high)
            width[text] = (low + high + 1) // 2
            if low > high:
                del limits[text], width[text]
    return longest


@dataclass
class _Wanted:
    """Windows of one width that are looked for; equal ones are looked for once.

    Attributes:
        ids: all tokens in which the windows lie.
        hashes: (k,) ascending; of windows that differ.
        offsets: (k,) of these windows in `ids`.
        member: (windows,) which of the k each window is.
    """

    width: int
    ids: NDArray[np.int64]
    hashes: Hashes
    offsets: Places
    member: Places
    counts: Places = field(init=False)
    first: Places = field(init=False)

    @classmethod
    def of(cls, ids: NDArray[np.int64], offsets: Places, width: int) -> _Wanted:
        hashes = _window_hashes(_prefix_sums(ids), width)[offsets] if len(offsets) else np.zeros(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        hashes, offsets = hashes[order], offsets[order]
        new = np.ones(len(order), dtype=bool)
        same = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
        new[same] = ~_equal(ids, offsets[same], ids, offsets[same - 1], width)
        member = np.empty(len(order), dtype=np.int64)
        member[order] = np.cumsum(new) - 1
        return cls(width, ids, hashes[new], offsets[new], member)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.hashes), dtype=np.int64)
        self.first = np.full(len(self.hashes), -1, dtype=np.int64)
        self._asked = np.zeros(1 << FILTER_BITS, dtype=bool)
        self._asked[self._flag(self.hashes)] = True

    def _flag(self, hashes: Hashes) -> Places:
        return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)

    def look(self, stream: NDArray[np.integer], sums: Hashes, begin: int, count: int) -> None:
        """Count the windows that begin at `begin` to `begin` + `count` - 1 of the stream.

        Args:
            sums: prefix sums of the stream from `begin` on.
        """
        hashes = _window_hashes(sums[: count + self.width], self.width)
        places = np.flatnonzero(self._asked[self._flag(hashes)])
        low, high = (np.searchsorted(self.hashes, hashes[places], side=side) for side in ("left", "right"))
        pairs = high - low
        numbers = np.arange(int(pairs.sum())) + np.repeat(low - (np.cumsum(pairs) - pairs), pairs)
        places = np.repeat(places, pairs) + begin
        right = _equal(stream, places, self.ids, self.offsets[numbers], self.width)
        places, numbers = places[right], numbers[right]
        self.counts += np.bincount(numbers, minlength=len(self.counts))
        found, earliest = np.unique(numbers, return_index=True)  # the places ascend
        self.first[found] = np.where(self.first[found] < 0, places[earliest], self.first[found])


def _occurrences(
    stream: NDArray[np.integer], ids: NDArray[np.int64], offsets: Places, widths: Places
) -> tuple[Places, Places]:
    """`occurrences` of the windows ids[offsets[i] : offsets[i] + widths[i]]."""
    groups = {int(width): np.flatnonzero(widths == width) for width in np.unique(widths)}
    wanted = {width: _Wanted.of(ids, offsets[members], width) for width, members in groups.items()}
    widest = max(groups, default=0)
    for begin in range(0, len(stream) if groups else 0, CHUNK):
        chunk = stream[begin : begin + CHUNK + widest - 1]
        sums = _prefix_sums(chunk)
        for width, windows in wanted.items():
            if (count := min(CHUNK, len(chunk) - width + 1)) > 0:
                windows.look(stream, sums, begin, count)
    counts, positions = np.zeros(len(offsets), np.int64), np.full(len(offsets), -1, np.int64)
    for width, members in groups.items():
        counts[members] = wanted[width].counts[wanted[width].member]
        positions[members] = wanted[width].first[wanted[width].member]
    return counts, positions


def _prefix_sums(tokens: NDArray[np.integer]) -> Hashes:
    """H of the module docstring: (n + 1,) uint64, which wraps around."""
    mixed = tokens.astype(np.uint64) + np.uint64(1)  # the mix of SplitMix64 (Steele et al. 2014); it maps 0 to 0
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    sums = np.zeros(len(tokens) + 1, dtype=np.uint64)
    np.cumsum(mixed * _powers(BASE, len(tokens)), out=sums[1:])
    return sums


def _window_hashes(sums: Hashes, width: int) -> Hashes:
    """Hashes of all windows: (len(sums) - width,) uint64."""
    hashes: Hashes = (sums[width:] - sums[:-width]) * _powers(INVERSE, len(sums) - width)
    return hashes >> np.uint64(64 - HASH_BITS) << np.uint64(64 - HASH_BITS) if HASH_BITS < 64 else hashes


def _powers(base: int, count: int) -> Hashes:
    """base^0, base^1, ... modulo 2^64: (count,)."""
    return _all_powers(base, 1 << (count - 1).bit_length() if count else 0)[:count]


@lru_cache(maxsize=8)  # two bases in few sizes
def _all_powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _equal(a: NDArray[np.integer], at: Places, b: NDArray[np.integer], bt: Places, width: int) -> NDArray[np.bool_]:
    """Whether the windows of `a` at `at` equal those of `b` at `bt`: (n,) bool."""
    equal, step, within = np.empty(len(at), dtype=bool), max(1, COMPARED // width), np.arange(width)
    for begin in range(0, len(at), step):
        part = slice(begin, begin + step)
        equal[part] = (a[at[part, None] + within] == b[bt[part, None] + within]).all(axis=1)
    return equal
