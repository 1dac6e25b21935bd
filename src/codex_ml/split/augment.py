"""Add changed copies of train documents to train.parquet: `split.augment`, off by default.

The step runs after all documents are dealt, and reads train only, so nothing of it reaches val or test. A copy has the
group of its original. It is left out where it would undo what the split promises: if the policy finds something in it,
if it holds a benchmark item, or if it comes near a held-out document. The last is decided without a search. Let C be
the shingles of the copy, H those of all of val and test, and t `split.near_duplicate`. A near-duplicate d of the copy
in val or test has |C and d| / |C or d| >= t, so |C and H| >= |C and d| >= t |C|. With |C and H| < t |C| there is none.
Used by: stages/split.py.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.io import write_json
from codex_ml.core.plugins import UnusablePlugin, load
from codex_ml.core.sorted_arrays import begins_of
from codex_ml.documents.document import Document, read_documents, write_documents
from codex_ml.split.benchmarks import read_benchmarks
from codex_ml.split.duplicates.shingles import shingles_of
from codex_ml.split.rename_identifiers import rename_identifiers
from codex_ml.split.screen import ScreenSettings, redacted
from codex_ml.split.split_writer import COUNTED, Counts

log = logging.getLogger("codex_ml")
Augmenter = Callable[[str, str, str], str | None]  # (text, language, seed) -> text, or None for no copy
BUILT_IN: dict[str, Augmenter] = {"rename_identifiers": rename_identifiers}


def augment_train(folder: Path, counts: Counts, settings: ScreenSettings) -> None:
    """Rewrite train.parquet with a copy after each text that an augmenter of `split.augment` changes; count them.

    augmented.json gets, per augmenter, the number of copies and of those that are left out, by reason.

    Args:
        folder: holds the three splits.
        counts: of train; the copies are added.

    Raises:
        UserError: when an augmenter cannot be loaded, raises, or returns something else than a text or None.
    """
    names = settings.params.augment
    if not names:
        return
    augmenters = {name: BUILT_IN.get(name) or load("augmenters", name) for name in names}
    copier = _Copier(augmenters, settings, _held_out(folder), counts)
    write_documents(folder / "augmented.parquet", copier.with_copies(read_documents(folder / "train.parquet")))
    os.replace(folder / "augmented.parquet", folder / "train.parquet")  # noqa: PTH105 - both names are in a new folder
    result = {name: dict(sorted(copier.found[name].items())) for name in names}
    write_json(folder / "augmented.json", result)
    log.info("split: augmented train: %s", result)


class _Copier:
    def __init__(
        self, augmenters: dict[str, Augmenter], settings: ScreenSettings, held_out: NDArray[np.uint64], counts: Counts
    ) -> None:
        self.augmenters, self.settings, self.held_out, self.counts = augmenters, settings, held_out, counts
        self.found: dict[str, Counter[str]] = {name: Counter({"copies": 0}) for name in augmenters}
        files = settings.params.benchmarks
        self._benchmarks = read_benchmarks(files) if files else None

    def with_copies(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Yield each document, and after it its copies; both then have one group."""
        for document in documents:
            copies = list(self._copies(document)) if document.text is not None else []
            group = document.group or f"{document.source}/{document.path or document.id}"
            yield replace(document, group=group) if copies else document
            self.counts.groups += bool(copies) and not document.group
            for copy in copies:
                self.counts.add(_counted(copy))
                yield replace(copy, group=group)

    def _copies(self, document: Document) -> Iterator[Document]:
        for name, augment in self.augmenters.items():
            text = _called(name, augment, document, self.settings.params.salt)
            if text is None or text == document.text:
                continue
            meta = {**(json.loads(document.meta) if document.meta else {}), "augmented": name}
            copy = replace(document, id=f"{document.id}+{name}", text=text, meta=json.dumps(meta, ensure_ascii=False))
            reason = self._why_not(copy)
            self.found[name][reason or "copies"] += 1
            if not reason:
                yield copy

    def _why_not(self, copy: Document) -> str:
        """Why a copy is left out; "" if it is not."""
        assert copy.text is not None
        if any(found.action != "allow" for found in redacted(copy, self.settings)[1]):
            return "policy"
        if self._benchmarks is not None and self._benchmarks.find(copy.text):
            return "benchmark"
        (own,) = shingles_of([copy.text])
        near = int(np.isin(own, self.held_out, assume_unique=True).sum())
        return "held_out" if near and near >= self.settings.params.near_duplicate * len(own) else ""


def _called(name: str, augment: Augmenter, document: Document, salt: str) -> str | None:
    assert document.text is not None
    seed = "\0".join((salt, document.source, document.path, document.id))
    try:
        found = augment(document.text, document.language, seed)
    except UserError:
        raise
    except Exception as error:  # its text may quote the document
        raise UnusablePlugin("augmenters", name, f"failed: {type(error).__name__}") from None
    if found is not None and not isinstance(found, str):
        raise UnusablePlugin("augmenters", name, f"must return a text or None, found {type(found).__name__}")
    return found


def _held_out(folder: Path) -> NDArray[np.uint64]:
    """The distinct shingles of all documents of val and test, sorted: (n,) uint64, 8 bytes per word of these splits."""
    parts = [np.zeros(0, dtype=np.uint64)]
    for split in ("val", "test"):
        parts += [shingles_of([document.content])[0] for document in read_documents(folder / f"{split}.parquet")]
    values = np.sort(np.concatenate(parts))
    return values[begins_of(values)] if len(values) else values


def _counted(copy: Document) -> Counts:
    by = {name: Counter({str(getattr(copy, name)): 1}) for name in COUNTED}
    return Counts(documents=1, bytes=len((copy.text or "").encode("utf-8")), by=by)
