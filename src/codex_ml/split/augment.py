"""Add changed copies of train documents to train.parquet: `split.augment`, off by default.

The step runs after all documents are dealt, and reads train only, so nothing of it reaches val or test. A copy has the
group of its original. It is left out where it would undo what the split promises: if the policy finds something in it,
if it holds a benchmark item, or if it comes near a held-out document. The last is decided without a search. Let C be
the shingles of the copy, H those of all of val and test, and t `split.near_duplicate`. A near-duplicate d of the copy
in val or test has |C and d| / |C or d| >= t, so |C and H| >= |C and d| >= t |C|. With |C and H| < t |C| there is none.
A text of fewer than five words has no shingle; of it the whole text is compared.
Used by: stages/split.py.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import xxhash

from codex_ml.core.errors import UserError
from codex_ml.core.io import write_json
from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin
from codex_ml.documents.document import Document, canonical, read_documents, write_documents
from codex_ml.split.benchmarks import read_benchmarks
from codex_ml.split.duplicates.prefixes import SLACK
from codex_ml.split.duplicates.shingles import Shingles, shingles_of
from codex_ml.split.held_out_shingles import HeldOutShingles
from codex_ml.split.redaction import ScreenSettings, redacted
from codex_ml.split.rename_identifiers import rename_identifiers
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
    augmenters = {name: BUILT_IN.get(name) or load_locked("augmenters", name) for name in names}
    held_out = HeldOutShingles.write(folder / "held_out", _held_out(folder))
    copier = _Copier(augmenters, settings, held_out, counts)
    write_documents(folder / "augmented.parquet", copier.with_copies(read_documents(folder / "train.parquet")))
    os.replace(folder / "augmented.parquet", folder / "train.parquet")  # noqa: PTH105 - both names are in a new folder
    shutil.rmtree(folder / "held_out")
    result = {name: dict(sorted(copier.found[name].items())) for name in names}
    write_json(folder / "augmented.json", result)
    log.info("split: augmented train: %s", result)


class _Copier:
    def __init__(
        self, augmenters: dict[str, Augmenter], settings: ScreenSettings, held_out: HeldOutShingles, counts: Counts
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
            if not text or text == document.text:
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
        own = _marks(copy)
        near = self.held_out.count(own)
        return "held_out" if near and near >= self.settings.params.near_duplicate * len(own) - SLACK else ""


def _called(name: str, augment: Augmenter, document: Document, salt: str) -> str | None:
    assert document.text is not None
    seed = "\0".join((salt, document.source, document.path, document.id))
    try:
        found = augment(document.text, document.language, seed)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # its text may quote the document
        raise UnusablePlugin("augmenters", name, f"failed: {type(error).__name__}") from None
    if found is not None and not isinstance(found, str):
        raise UnusablePlugin("augmenters", name, f"must return a text or None, found {type(found).__name__}")
    try:
        (found or "").encode("utf-8")
    except UnicodeEncodeError:
        raise UnusablePlugin("augmenters", name, "returned half of a surrogate pair, which UTF-8 cannot hold") from None
    return found


def _held_out(folder: Path) -> Iterator[Shingles]:
    """The marks of each document of val and test."""
    for split in ("val", "test"):
        yield from map(_marks, read_documents(folder / f"{split}.parquet"))


def _marks(document: Document) -> Shingles:
    """The shingles of a document; for one of fewer than five words, which has none, the hash of its text."""
    (shingles,) = shingles_of([document.content])
    if len(shingles):
        return shingles
    return np.array([xxhash.xxh3_64_intdigest(canonical(document.content).encode("utf-8"))], dtype=np.uint64)


def _counted(copy: Document) -> Counts:
    by = {name: Counter({str(getattr(copy, name)): 1}) for name in COUNTED}
    return Counts(documents=1, bytes=len((copy.text or "").encode("utf-8")), by=by)
