"""List documents for which united histories of the ledger give two answers, and the answer that counts.

A single history has no contradictions; they come from a merge of two people's data. Used by: stages/split.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from codex_ml.core.io import atomic_file
from codex_ml.core.strict_json import ndjson_line
from codex_ml.documents.document import opened
from codex_ml.documents.split_files import LedgerCounts, NamedContradiction
from codex_ml.split.candidates import EVICTED, PARTS, REASONS, Dealt, DocumentKeys
from codex_ml.split.ledger.answers import SPLITS, Ledger, disagree
from codex_ml.split.redaction import ScreenSettings, redacted_name
from codex_ml.split.splits import Pool

CONTENT = "its content is in lines of several splits"
GROUP = "its group is in lines of a cleaner split"
NEAR_COPY = "it resembles a document of a cleaner split"
FIRST = 20  # contradictions shown in the manifest


def contradictions(documents: DocumentKeys, dealt: Dealt, ledger: Ledger) -> dict[int, dict[str, Any]]:
    """Candidate -> kind of contradiction, the answers of the ledger, and the resulting split or drop reason.

    Of exact copies only the representative is listed.
    """
    if not len(ledger):
        return {}
    listed = np.flatnonzero((dealt.old >= 0) & (dealt.copies == np.arange(len(dealt.copies))))
    old, unit = dealt.old[listed], ledger.units_of(documents.unit[listed])
    split = ledger.split[old]
    other = np.where(unit >= 0, ledger.unit_split[unit], split)
    in_content = disagree(ledger.answers[old])
    bits = np.array([1 << number for number in range(len(SPLITS))], dtype=np.uint8)
    apart = disagree(bits[split] | bits[other])
    in_group = dealt.pinned[listed] & (unit >= 0) & disagree(ledger.unit_answers[unit]) & apart
    found: dict[int, dict[str, Any]] = {}
    evicted = dealt.pinned[listed] & (dealt.reason[listed] == EVICTED)
    for number in np.flatnonzero(in_content | in_group | evicted).tolist():
        row = int(listed[number])
        if in_content[number]:
            kind, answers = CONTENT, {name for bit, name in enumerate(SPLITS) if ledger.answers[old[number]] >> bit & 1}
        elif in_group[number]:
            kind, answers = GROUP, {SPLITS[split[number]], SPLITS[other[number]]}
        else:
            keeper = dealt.old[dealt.kept_by[row]]
            kind, answers = NEAR_COPY, {SPLITS[split[number]], SPLITS[ledger.split[keeper]]}
        part = int(dealt.part[row])
        found[row] = {
            "contradiction": kind,
            "answers": sorted(answers),
            "result": PARTS[part] if part >= 0 else REASONS[dealt.reason[row]],
        }
    return found


def write_contradictions(
    folder: Path, corpus: Path, pool: Pool, dealt: Dealt, ledger: Ledger, settings: ScreenSettings
) -> LedgerCounts:
    """Write contradictions.ndjson in the order of the corpus: redacted source, path and id, and the contradiction.

    Returns:
        counts for the manifest, with the first contradictions.
    """
    by_document = contradictions(pool.candidates, dealt, ledger)
    by_row = {int(pool.passed[number]): contradiction for number, contradiction in by_document.items()}
    first: list[NamedContradiction] = []
    with atomic_file(folder / "contradictions.ndjson") as lines:
        for contradiction in _named(by_row, corpus, settings):
            lines.write(ndjson_line(contradiction))
            if len(first) < FIRST:
                first.append(NamedContradiction(**contradiction))
    return LedgerCounts(lines=ledger.size, contradictions=len(by_row), first=first)


def _named(rows: dict[int, dict[str, Any]], corpus: Path, settings: ScreenSettings) -> Iterator[dict[str, Any]]:
    sorted_rows = np.array(sorted(rows), dtype=np.int64)
    start = 0
    with opened(corpus) as file:
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = sorted_rows[np.searchsorted(sorted_rows, start) : np.searchsorted(sorted_rows, stop)]
            if len(here):
                table = file.read_row_group(group, columns=["source", "path", "id"]).take(here - start)
                for row, names in zip(here.tolist(), table.to_pylist(), strict=True):
                    yield {key: redacted_name(name, settings) for key, name in names.items()} | rows[row]
            start = stop
