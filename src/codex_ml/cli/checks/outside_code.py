"""Code that is not in Git and not in an installed package: what was planted after a run, and what a run had with it.

Used by: `codex-ml verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.core.loaded_code import installed_start_code
from codex_ml.core.namesakes import all_in_one
from codex_ml.core.pipeline import StageSpec
from codex_ml.core.planted_files import planted_files
from codex_ml.core.record import read_record, record_path


def refuse_planted(stages: dict[str, StageSpec]) -> None:
    """Refuse a file that Python could import in place of a module: the next run would fail, or use it.

    Raises:
        CheckFailed: names them on one line.
    """
    if found := list(planted_files(stages)):
        raise CheckFailed(all_in_one(found))


def refuse_other_start_code(stage: str, record: dict[str, Any]) -> None:
    """Refuse a file among the installed packages that runs at Python's start, if the stage ran without it.

    Raises:
        CheckFailed: names the first one.
    """
    recorded = _start_code(record)
    for file in installed_start_code():
        if recorded.get(file.name) != (found := sha256_of(file)):
            raise CheckFailed(
                f"{stage}: {file} runs at the start of Python, and {record_path(stage)} does not have it (SHA-256 "
                f"{found}); remove the file, or run `dvc repro --force`"
            )


def start_code_notes(stages: Iterable[str]) -> Iterator[str]:
    """One line per file that ran at Python's start in some of these stages and that no installed package brings."""
    ran: dict[tuple[str, str], list[str]] = {}
    for stage in stages:
        try:
            record = read_record(stage)
        except UserError:  # `verified_links` reports it
            continue
        for found in _start_code(record).items():
            ran.setdefault(found, []).append(stage)
    for (name, digest), names in ran.items():
        where = f"{name} ran at the start of Python in {', '.join(names)}"
        yield f"{where}; no installed package has it, and the records have its SHA-256: {digest}"


def _start_code(record: dict[str, Any]) -> dict[str, str]:
    environment = record.get("environment")
    found = environment.get("start_code") if isinstance(environment, dict) else None
    return found if isinstance(found, dict) else {}
