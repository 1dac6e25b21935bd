"""An index of just those shingles by which two documents can reach a Jaccard similarity.

Order the shingles of each document from rare to frequent: by (documents that hold it, hash). Let two documents have n_x
and n_y shingles and share o of them. Their similarity is o / (n_x + n_y - o), so it reaches t exactly when
o >= t / (1 + t) * (n_x + n_y). Take the first shingle that they share. If it has place p in x, counted from 0, they
share at most r_x = n_x - p, and likewise r_y. So both r must reach that sum, which gives each posting a cap:

    n_y <= r_x * (1 + t) / t - n_x  and  n_x <= r_y * (1 + t) / t - n_y

A posting whose cap is below t * n_x has no possible partner and is left out. What stays is the prefix of AllPairs
(Bayardo, Ma, Srikant 2007) and the caps are the position filter of PPJoin (Xiao, Wang, Lin, Yu 2008), both exact. A
licence header, being frequent, comes last: it proposes a pair only when the pair can really reach t. A shingle that no
other document holds proposes nothing and is left out as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets, mapped

BYTES_PER_POSTING = 16
SLACK = 1e-6  # added to bounds, so that no rounding loses a pair that is exactly at the threshold


@dataclass(frozen=True)
class Postings:
    """Entries of the index, sorted by shingle; arrays of one length.

    Attributes:
        shingle: uint64.
        row: int32, the document.
        cap: int32, the most shingles that a partner may have.
    """

    shingle: NDArray[np.uint64]
    row: NDArray[np.int32]
    cap: NDArray[np.int32]


@dataclass(frozen=True)
class IndexTask:
    """Documents start to stop, whose shingles begin at `offset` of the file."""

    sets: StoredSets
    threshold: float
    start: int
    stop: int
    offset: int
    number: int  # of the file


def index(task: IndexTask) -> int:
    """Write the postings of some documents; returns how many there are. Runs in a worker."""
    found = postings_of(task)
    path = posting_file(task.sets.folder, task.number)
    with naming(path), path.open("wb") as file:
        for values in (found.shingle, found.row, found.cap):
            file.write(values.data)
    return len(found.row)


def posting_file(folder: Path, number: int) -> Path:
    """All shingles, then all rows, then all caps: each part of the join opens one file per task, not three."""
    return folder / f"{number}.postings"


def least_size(sizes: NDArray[np.integer], threshold: float) -> RowNumbers:
    """The fewest shingles that a document similar to one of n shingles can have: t * n, rounded up."""
    return np.ceil(sizes * threshold - SLACK).astype(np.int64)


def postings_of(task: IndexTask) -> Postings:
    """The postings of documents start to stop: those that `rows` of the folder marks."""
    sizes = task.sets.sizes[task.start : task.stop].astype(np.int64)
    member = mapped(task.sets.folder / "members", np.bool_)[task.start : task.stop]
    values = task.sets.read(task.offset, task.offset + int(sizes.sum()))
    counts = task.sets.counts[(values >> np.uint64(64 - task.sets.bits)).view(np.int64)]
    document = np.repeat(np.arange(len(sizes)), sizes)
    shared = counts > 1
    alone = sizes - np.bincount(document[shared], minlength=len(sizes))  # the first places, which propose nothing
    least = least_size(sizes, task.threshold)
    useful = member & (alone <= sizes - least) & (sizes > 0)
    chosen = shared & useful[document]
    document, values, counts = document[chosen], values[chosen], counts[chosen]
    order = np.argsort((document << 32) | counts, kind="stable")  # equal counts stay in the order of their hashes
    document, values = document[order], values[order]
    first = np.searchsorted(document, np.arange(len(sizes)))
    left = (sizes - alone + first)[document] - np.arange(len(document))  # r: this shingle and those after it
    caps = np.floor(left * ((1 + task.threshold) / task.threshold) + SLACK).astype(np.int64) - sizes[document]
    kept = np.flatnonzero(caps >= least[document])
    kept = kept[np.argsort(values[kept], kind="stable")]
    rows = (document[kept] + task.start).astype(np.int32)
    return Postings(values[kept], rows, np.minimum(caps[kept], np.iinfo(np.int32).max).astype(np.int32))


def read_postings(folder: Path, number: int, low: int, high: int) -> Postings:
    """The postings of one file whose shingle is at least `low` and below `high`."""
    data = mapped(posting_file(folder, number), np.uint8)
    count = len(data) // BYTES_PER_POSTING
    shingles, numbers = data[: 8 * count].view(np.uint64), data[8 * count :].view(np.int32)
    start = int(np.searchsorted(shingles, np.uint64(low)))
    stop = int(np.searchsorted(shingles, np.uint64(high))) if high < 1 << 64 else count
    rows, caps = numbers[start:stop], numbers[count + start : count + stop]
    return Postings(np.array(shingles[start:stop]), np.array(rows), np.array(caps))


def concatenated(parts: list[Postings], chosen: Callable[[NDArray[np.int32]], NDArray[np.bool_]]) -> Postings:
    """The postings of some files whose rows `chosen` says yes to, sorted by shingle."""
    masks = [chosen(part.row) for part in parts]
    shingle = np.concatenate([part.shingle[mask] for part, mask in zip(parts, masks, strict=True)])
    order = np.argsort(shingle, kind="stable")
    row = np.concatenate([part.row[mask] for part, mask in zip(parts, masks, strict=True)])
    cap = np.concatenate([part.cap[mask] for part, mask in zip(parts, masks, strict=True)])
    return Postings(shingle[order], row[order], cap[order])
