"""Pair the items of two results: the same item with the same content, and what stays together in both.

Used by: evaluate.comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from codex_ml.core.errors import UserError

SHOWN = 3  # items that a message names
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


@dataclass(frozen=True)
class ItemKeys:
    """The items of one result: `table` has the text columns item, content and unit; `name` is for messages."""

    name: str
    table: pd.DataFrame


def pair_items(task: str, a: ItemKeys, b: ItemKeys, common: bool) -> Pairing:
    """Pair the items with equal id and equal content.

    An id that occurs several times with one content is paired by its occurrence: the first with the first.

    Args:
        common: leave out items that one result has alone, instead of refusing.

    Raises:
        UserError: when the results were made on different items and `common` is false, or share no item; the message
            says how many items differ and names the first.
    """
    left, right = _numbered(a.table), _numbered(b.table)
    both = left.merge(right, on=[*KEY, "occurrence"], suffixes=("_a", "_b"), sort=False)
    only_a, only_b = len(left) - len(both), len(right) - len(both)
    if (only_a or only_b) and not (common and len(both)):
        raise UserError(_unlike(task, (a.name, left), (b.name, right), both))
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


def _unlike(task: str, a: tuple[str, pd.DataFrame], b: tuple[str, pd.DataFrame], both: pd.DataFrame) -> str:
    (name_a, left), (name_b, right) = a, b
    alone_a = left.loc[~left["row"].isin(both["row_a"]), "item"]
    alone_b = right.loc[~right["row"].isin(both["row_b"]), "item"]
    changed = alone_a[alone_a.isin(alone_b)].drop_duplicates()
    parts = [
        _counted(alone_a[~alone_a.isin(changed)], f"only in {name_a}"),
        _counted(alone_b[~alone_b.isin(changed)], f"only in {name_b}"),
        _counted(changed, "with other content"),
    ]
    said = f"{name_a} and {name_b} are results on different items of `{task}`: {'; '.join(filter(None, parts))}"
    if not len(both):
        return f"{said}; they share no item, so there is nothing to compare"
    return f"{said}; `--common` compares the {len(both)} that both have"


def _counted(items: pd.Series, where: str) -> str:
    return f"{len(items)} {where} ({_first(items, len(items))})" if len(items) else ""


def _first(items: Iterable[str], count: int) -> str:
    shown = ", ".join(item if len(item) <= 60 else item[:60] + "..." for item in islice(items, SHOWN))
    return shown + (", ..." if count > SHOWN else "")
