"""The counts of the split ledger, as `codex-ml ledger show` and `codex-ml ledger forget` print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codex_ml.split.ledger.answers import Ledger


@dataclass(frozen=True)
class ContentCounts:
    """Number of contents per split, and of the duplicates, which are in no split.

    Attributes:
        pool: what a split with folds accepted: not in test, in train or val as the fold decides.
    """

    train: int
    val: int
    test: int
    pool: int
    duplicates: int


@dataclass(frozen=True)
class ContradictionCounts:
    """Number of contents and units that have lines with different answers."""

    contents: int
    units: int


@dataclass(frozen=True)
class SplitLedgerCounts:
    """What `codex-ml ledger show --json` prints.

    Attributes:
        lines: of the ledger, those that do not count too.
        units: number of groups of documents that keep one split.
        forgotten: number of contents in forgotten.txt.
    """

    lines: int
    contents: ContentCounts
    units: int
    forgotten: int
    contradictory: ContradictionCounts


@dataclass(frozen=True)
class ForgottenContents:
    """What `codex-ml ledger forget --json` prints.

    Attributes:
        forgotten: content -> its split, with " (a duplicate)" where it is one, or "not listed".
        before, after: the contents that count.
        dry_run: whether nothing was changed.
    """

    forgotten: dict[str, str]
    before: ContentCounts
    after: ContentCounts
    dry_run: bool


def ledger_counts(ledger: Ledger) -> SplitLedgerCounts:
    """Count a ledger."""
    from codex_ml.split.ledger.answers import disagree

    return SplitLedgerCounts(
        lines=ledger.size,
        contents=content_counts(ledger),
        units=len(ledger.units),
        forgotten=len(ledger.forgotten),
        contradictory=ContradictionCounts(
            contents=int(disagree(ledger.answers).sum()), units=int(disagree(ledger.unit_answers).sum())
        ),
    )


def content_counts(ledger: Ledger, without: Sequence[str] = ()) -> ContentCounts:
    """Count the contents of a ledger, without some of them."""
    import numpy as np

    from codex_ml.split.ledger.answers import SPLITS
    from codex_ml.split.ledger.forgotten import contents_of
    from codex_ml.split.ledger.line_format import content_keys

    counts = np.ones(len(ledger), dtype=bool)
    if without:
        counts = ~np.isin(content_keys(ledger.high, ledger.low), contents_of(list(without)))
    kept = {name: int((counts & ledger.kept & (ledger.split == i)).sum()) for i, name in enumerate(SPLITS)}
    return ContentCounts(**kept, duplicates=int((counts & ~ledger.kept).sum()))
