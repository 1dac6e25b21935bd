"""Refuse, after screening and before writing, an empty corpus and parameters that match no document.

Used by: stages/split.py.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.documents.document import opened
from codex_ml.split.config import LANGUAGES, Split
from codex_ml.split.splits import Pool

MOST_FIELDS = 1000  # field names of meta that are collected for a message
WAYS_OUT = {
    "licence unknown": "state the licence in ingest.sources (one of your own as LicenseRef-NAME) and list it in "
    "split.licences, or set split.unknown_licence: keep",
    "licence not allowed": "list their licence in split.licences",
}


def require_documents(pool: Pool) -> None:
    """Refuse a corpus of which no document passed screening.

    Raises:
        UserError: says why no document passed, and what to change.
    """
    if not len(pool.passed):
        numbers = Counter(dict(enumerate(np.bincount(pool.reason).tolist())))
        reasons = [(pool.reasons[number], count) for number, count in numbers.most_common() if count]
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        ways = dict.fromkeys(WAYS_OUT.get(reason, "see split.quality and data/policy.yaml") for reason, _ in reasons)
        raise UserError(f"none of the {len(pool.size)} documents passed ({counts}); {'; '.join(ways)}")


def refuse_unused_names(pool: Pool, corpus: Path, options: Split) -> None:
    """Refuse a stratum and a language that no document has; they would silently change nothing.

    Raises:
        UserError: names the key, the value, and the values that exist.
    """
    if options.stratify and not pool.strata - {""}:
        present = sorted({"language", "licence", "source", *_fields_of_meta(corpus)})
        problem = "is empty in every document" if options.stratify in present else "is in no document"
        present = [name for name in present if name != options.stratify]
        raise UserError(f"split.stratify: {options.stratify!r} {problem}; {_suggestion(options.stratify, present)}")
    if named := options.quality.languages.keys() - LANGUAGES.keys():
        present = sorted(_languages(corpus))
        if missing := sorted(named - {name.lower() for name in present}):
            suggestion = _suggestion(missing[0], present)
            raise UserError(f"split.quality.languages: no document is in {missing[0]!r}; {suggestion}; or remove it")


def _languages(corpus: Path) -> set[str]:
    with opened(corpus) as file:
        columns = (file.read_row_group(group, columns=["language"])[0] for group in range(file.num_row_groups))
        return {str(name) for column in columns for name in column.unique().to_pylist()}


def _fields_of_meta(corpus: Path) -> set[str]:
    """Names of the fields in the meta of documents."""
    names: set[str] = set()
    with opened(corpus) as file:
        for group in range(file.num_row_groups):
            for meta in file.read_row_group(group, columns=["meta"])[0].to_pylist():
                if meta and len(names) < MOST_FIELDS:
                    names.update(json.loads(meta))
    return names


def _suggestion(name: str, present: list[str]) -> str:
    if near := difflib.get_close_matches(name, present, n=1):
        return f"did you mean {near[0]}?"
    return f"present: {', '.join(present[:20])}{', ...' if len(present) > 20 else ''}"
