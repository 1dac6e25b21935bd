"""An index of only those shingles that two documents with the required Jaccard similarity must share.

Order the shingles of each document from rare to frequent: by (documents that hold it, hash). Let two documents have n_x
and n_y shingles and share o of them. Their similarity is o / (n_x + n_y - o), so it reaches t exactly when
o >= t / (1 + t) * (n_x + n_y). Take the first shingle that they share. If it has place p in x, counted from 0, they
share at most r_x = n_x - p, and likewise r_y. So both r must reach that sum, which gives each posting a cap:

    n_y <= r_x * (1 + t) / t - n_x  and  n_x <= r_y * (1 + t) / t - n_y

A posting whose cap is below t * n_x has no possible partner and is left out. The remaining postings are the prefix of
AllPairs (Bayardo, Ma, Srikant 2007), and the caps are the position filter of PPJoin (Xiao, Wang, Lin, Yu 2008). Both
are exact. The shingles of a licence header are frequent, so they come last and propose a pair only if it can reach t. A
shingle that no other document holds proposes no pair and is left out too.

For example, let t = 0.5 and let x hold 3 shingles, all shared with other documents. Their r are 3, 2, 1, and their caps
r * 3 - 3 are 6, 3, 0. The least size of a partner is 2, so the third posting is left out.
Used by: duplicates.dedup, duplicates.proposals, duplicates.tiles.
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
SLACK = 1e-6  # added to bounds, so that rounding never loses a pair exactly at the threshold


@dataclass(frozen=True)
class Postings:
    """Entries of the index, sorted by shingle; arrays of one length.

    Attributes:
        shingle: uint64.
        row: int32, row number of the document.
        cap: int32, largest number of shingles that a partner may have.
    """

    shingle: NDArray[np.uint64]
    row: NDArray[np.int32]
    cap: NDArray[np.int32]


@dataclass(frozen=True)
class IndexTask:
    """Documents start to stop to index. Their shingles begin at `offset` of the file, counted in shingles."""

    sets: StoredSets
    threshold: float
    start: int
    stop: int
    offset: int
    number: int  # number of the file that is written


def index(task: IndexTask) -> int:
    """Write the postings of some documents, and return their number. Runs in a worker."""
    found = postings_of(task)
    path = posting_file(task.sets.folder, task.number)
    with naming(path), path.open("wb") as file:
        for values in (found.shingle, found.row, found.cap):
            file.write(values.data)
    return len(found.row)


def posting_file(folder: Path, number: int) -> Path:
    """Path of a file with all shingles, then all rows, then all caps: one file, so that the join opens fewer files."""
    return folder / f"{number}.postings"


def least_size(sizes: NDArray[np.integer], threshold: float) -> RowNumbers:
    """Least number of shingles of a document that is similar to one of n shingles: t * n, rounded up."""
    return np.ceil(sizes * threshold - SLACK).astype(np.int64)


def postings_of(task: IndexTask) -> Postings:
    """The postings of those of the documents start to stop that the file `members` marks."""
    sizes = task.sets.sizes[task.start : task.stop].astype(np.int64)
    member = mapped(task.sets.folder / "members", np.bool_)[task.start : task.stop]
    values = task.sets.read(task.offset, task.offset + int(sizes.sum()))
    counts = task.sets.counts[(values >> np.uint64(64 - task.sets.bits)).view(np.int64)]
    document = np.repeat(np.arange(len(sizes)), sizes)
    shared = counts > 1
    # Shingles that only this document holds come first, and propose no pair.
    alone = sizes - np.bincount(document[shared], minlength=len(sizes))
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
    """The postings of one file with low <= shingle < high."""
    data = mapped(posting_file(folder, number), np.uint8)
    count = len(data) // BYTES_PER_POSTING
    shingles, numbers = data[: 8 * count].view(np.uint64), data[8 * count :].view(np.int32)
    start = int(np.searchsorted(shingles, np.uint64(low)))
    stop = int(np.searchsorted(shingles, np.uint64(high))) if high < 1 << 64 else count
    rows, caps = numbers[start:stop], numbers[count + start : count + stop]
    return Postings(np.array(shingles[start:stop]), np.array(rows), np.array(caps))


def concatenated(parts: list[Postings], chosen: Callable[[NDArray[np.int32]], NDArray[np.bool_]]) -> Postings:
    """The postings of some files, sorted by shingle. Only rows for which `chosen` is True are kept."""
    masks = [chosen(part.row) for part in parts]
    shingle = np.concatenate([part.shingle[mask] for part, mask in zip(parts, masks, strict=True)])
    order = np.argsort(shingle, kind="stable")
    row = np.concatenate([part.row[mask] for part, mask in zip(parts, masks, strict=True)])
    cap = np.concatenate([part.cap[mask] for part, mask in zip(parts, masks, strict=True)])
    return Postings(shingle[order], row[order], cap[order])
