"""Find the contents of the ledger that belong to documents of the corpus. Used by: `codex-ml ledger forget`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codex_ml.core.errors import UserError, safe_text
from codex_ml.core.parallel import ordered_map
from codex_ml.documents.document import documents_of, opened
from codex_ml.policy.redact import PLACEHOLDER
from codex_ml.split.ledger.answers import Ledger
from codex_ml.split.ledger.forgotten import contents_of
from codex_ml.split.ledger.line_format import content_keys, content_text
from codex_ml.split.redaction import ScreenSettings, redacted
from codex_ml.split.screen import hashes_of

CONTENT = re.compile(r"[A-Za-z0-9_-]{16}")


@dataclass(frozen=True)
class NameTask:
    """A row group of the corpus, and the paths and ids to look for; None for all documents."""

    corpus: Path
    group: int
    settings: ScreenSettings
    names: frozenset[str] | None


def name_contents(task: NameTask) -> list[tuple[str, str, int, int]]:
    """(id, path, high, low) of each document to look for; high and low hash its redacted text. Runs in a worker.

    Where a name to look for is redacted, all documents are listed, also under their redacted names.
    """
    hidden = task.names is not None and any(map(PLACEHOLDER.search, task.names))
    with opened(task.corpus) as file:
        table = file.read_row_group(task.group)
    if task.names is not None and not hidden:
        columns = (table.column(name).to_pylist() for name in ("id", "path"))
        found = [row for row, pair in enumerate(zip(*columns, strict=True)) if not task.names.isdisjoint(pair)]
        table = table.take(np.array(found, dtype=np.int64))
    result = []
    for document in documents_of(table):
        clean = redacted(document, task.settings)[0]
        high, low, _, _ = hashes_of(clean, "")
        for named in {document, clean} if hidden else (document,):
            result.append((named.id, named.path, high, low >> 32))
    return result


def _named(
    corpus: Path, settings: ScreenSettings, names: frozenset[str] | None, workers: int
) -> Iterator[tuple[str, str, int, int]]:
    if not corpus.is_file():
        raise UserError(f"{corpus} is missing, so documents cannot be looked up; `dvc repro ingest` makes it")
    with opened(corpus) as file:
        tasks = [NameTask(corpus, group, settings, names) for group in range(file.num_row_groups)]
    with tempfile.TemporaryDirectory() as folder:
        for _, found in ordered_map(name_contents, tasks, workers=workers, folder=Path(folder)):
            yield from found


def contents_named(
    names: Sequence[str], ledger: Ledger, corpus: Path, settings: ScreenSettings, workers: int
) -> list[str]:
    """Contents of documents by id, path or content: distinct, sorted, as a line of the ledger writes them.

    Raises:
        UserError: naming the first name that neither the corpus nor the ledger knows.
    """
    listed = np.concatenate([content_keys(ledger.high, ledger.low), ledger.forgotten])
    contents = {name for name in names if CONTENT.fullmatch(name) and np.isin(contents_of([name]), listed).all()}
    rest = set(names) - contents
    unknown = set(rest)
    if rest:
        for name, path, high, low in _named(corpus, settings, frozenset(rest), workers):
            if not rest.isdisjoint((name, path)):
                contents.add(content_text(high, low))
                unknown -= {name, path}
    if unknown:
        raise UserError(
            f"{safe_text(min(unknown))} is neither the id nor the path of a document in {corpus}, nor a content of the "
            "ledger; the first 16 characters of a line are its content"
        )
    return sorted(contents)


def contents_gone(ledger: Ledger, corpus: Path, settings: ScreenSettings, workers: int) -> list[str]:
    """Contents of the ledger that no document of the corpus has, sorted, as a line of the ledger writes them."""
    pairs = ((high, low) for _, _, high, low in _named(corpus, settings, None, workers))
    here = np.fromiter(pairs, dtype=[("high", np.uint64), ("low", np.uint32)])  # a list takes ten times the memory
    gone = np.flatnonzero(~np.isin(content_keys(ledger.high, ledger.low), content_keys(here["high"], here["low"])))
    return sorted(content_text(int(ledger.high[row]), int(ledger.low[row])) for row in gone.tolist())
