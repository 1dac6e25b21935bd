"""Pair the items of two results: the same item with the same content, and what stays together in both.

Items are compared by hashes, so that memory holds numbers, not names.

Used by: evaluate.comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xxhash
from numpy.typing import NDArray

from codex_ml.core.errors import UserError

SHOWN, LONGEST = 3, 60  # items that a message names, and characters of each
KEY = ["item", "content"]


@dataclass(frozen=True)
class Pairing:
    """The items that two results share, in the order of the first.

    Attributes:
        rows_a, rows_b: (n,) int64, the rows of the pair among the rows of the task.
        units: (n,) int64 from 0, equal for items that stay together in either result.
        only_a, only_b: number of items that one result has alone.
    """

    rows_a: NDArray[np.int64]
    rows_b: NDArray[np.int64]
    units: NDArray[np.int64]
    only_a: int
    only_b: int

    @property
    def unit_count(self) -> int:
        return int(self.units.max()) + 1


class NoSharedItem(UserError):
    """Two results of a task have no item in common."""


@dataclass(frozen=True)
class ItemKeys:
    """The items of one result, 24 bytes per item.

    Attributes:
        name: of the result, for messages.
        table: columns item, content and unit: uint64, equal where the texts are equal (see `text_keys`).
        texts: rows -> the ids of these items, for messages.
    """

    name: str
    table: pd.DataFrame
    texts: Callable[[Sequence[int]], list[str]]


def text_keys(texts: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hashes of texts. Two of a million texts share one with a probability of 3e-8."""
    hashes = (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts)
    return np.fromiter(hashes, dtype=np.uint64)


def pair_items(task: str, a: ItemKeys, b: ItemKeys, common: bool) -> Pairing:
    """Pair the items with equal id and equal content.

    An id that occurs several times with one content is paired by its occurrence: the first with the first.

    Args:
        common: leave out items that one result has alone, instead of refusing.

    Raises:
        UserError: when the results were made on different items and `common` is false; the message says how many
            items differ and names the first.
        NoSharedItem: when they share no item.
    """
    left, right = _numbered(a.table), _numbered(b.table)
    both = left.merge(right, on=[*KEY, "occurrence"], suffixes=("_a", "_b"), sort=False)
    only_a, only_b = len(left) - len(both), len(right) - len(both)
    if (only_a or only_b) and not (common and len(both)):
        raise (UserError if len(both) else NoSharedItem)(_unlike(task, (a, left), (b, right), both))
    return Pairing(
        both["row_a"].to_numpy(np.int64),
        both["row_b"].to_numpy(np.int64),
        _joined(both["unit_a"], both["unit_b"]),
        only_a,
        only_b,
    )


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    keys = table[[*KEY, "unit"]].reset_index(drop=True)
    return keys.assign(row=np.arange(len(keys)), occurrence=keys.groupby(KEY).cumcount())


def _joined(a: pd.Series, b: pd.Series) -> NDArray[np.int64]:
    """(n,) codes of the connected components: two items stay together if either result says so.

    Units a = x x y z and b = p q q r: items 0 and 1 share x, items 1 and 2 share q, so the codes are 0 0 0 1.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    codes_a, names_a = pd.factorize(a)
    codes_b, names_b = pd.factorize(b)
    size = len(names_a) + len(names_b)
    edges = coo_array((np.ones(len(codes_a), dtype=bool), (codes_a, codes_b + len(names_a))), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return pd.factorize(component[codes_a])[0].astype(np.int64)


def _unlike(task: str, a: tuple[ItemKeys, pd.DataFrame], b: tuple[ItemKeys, pd.DataFrame], both: pd.DataFrame) -> str:
    (side_a, left), (side_b, right) = a, b
    alone_a, alone_b = left[~left["row"].isin(both["row_a"])], right[~right["row"].isin(both["row_b"])]
    is_changed = alone_a["item"].isin(alone_b["item"])
    changed = alone_a[is_changed].drop_duplicates("item")
    parts = [
        _counted(side_a, alone_a[~is_changed], f"only in {side_a.name}"),
        _counted(side_b, alone_b[~alone_b["item"].isin(changed["item"])], f"only in {side_b.name}"),
        _counted(side_a, changed, "with other content"),
    ]
    said = (
        f"{side_a.name} and {side_b.name} are results on different items of `{task}`: {'; '.join(filter(None, parts))}"
    )
    if not len(both):
        return f"{said}; they share no item"
    return f"{said}; `--common` compares the {len(both)} that both have"


def _counted(side: ItemKeys, items: pd.DataFrame, where: str) -> str:
    """How many items, where, and the ids of the first ones; "" for none."""
    if not len(items):
        return ""
    names = [
        name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
        for name in side.texts(items["row"].iloc[:SHOWN].tolist())
    ]
    return f"{len(items)} {where} ({', '.join(names)}{', ...' if len(items) > SHOWN else ''})"
