"""Checks of the data for `codex-ml check`: DVC can hash all of it, and every path of params.yaml is in a hash."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import StageSpec, producers_of
from codex_ml.core.sections import PARAMS
from codex_ml.core.tree import OR_IGNORE, scan, why_not_traced
from codex_ml.core.yaml import read_yaml

COMMIT_DIGITS = 40


def data_problems(params: Params, stages: dict[str, StageSpec]) -> Iterator[str]:
    """Problems of the data that people put into the workspace, one line each."""
    for dep in sorted({dep for spec in stages.values() for dep in spec.data}):
        made = any(Path(dep).is_relative_to(out) for spec in producers_of(dep, stages) for out in spec.outs)
        if not made:
            yield from _unhashable(Path(dep))
    yield from _untraced(params, stages)
    yield from _moving(params)


def _unhashable(dep: Path) -> Iterator[str]:
    """The first entry of a dependency that DVC cannot hash, and the number of the others."""
    if why := why_not_traced(str(dep), [str(dep)]):
        yield why
    elif dep.is_dir():
        pointers = []
        found = []
        for entry in scan(dep):
            if entry.problem:
                found.append(entry)
            elif entry.name.endswith(".dvc"):
                pointers.append(dep / entry.name)
        found.sort(key=lambda entry: entry.name)
        yield from _foreign_pointers(dep, pointers)
        if found:
            more = ", ".join(str(dep / entry.name) for entry in found[1:6]) + (", ..." if len(found) > 6 else "")
            yield found[0].problem + (f" (and {len(found) - 1} more: {more})" if more else "")
    elif dep.exists() and not dep.is_file():
        yield f"{dep} is neither a file nor a folder, and DVC cannot hash it; put the file there"


def _foreign_pointers(dep: Path, pointers: list[Path]) -> Iterator[str]:
    """Pointers that came with foreign data: one that `dvc add` did not write can fetch, or overwrite, any path."""
    strange = sorted(pointer for pointer in pointers if not _is_of_dvc_add(pointer))
    if not strange:
        return
    listed = subprocess.run(["git", "ls-files", "-z", "--", str(dep)], capture_output=True, check=False)
    tracked = {Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0")}
    for pointer in strange:
        if pointer not in tracked:
            yield (
                f"{pointer}: DVC would fetch or overwrite what this file names, and Git does not track it; if it is "
                f"yours (dvc import), `git add {pointer}`, else remove it, {OR_IGNORE}"
            )


def _is_of_dvc_add(pointer: Path) -> bool:
    """Whether a pointer holds only the hash of the file or folder beside it."""
    try:
        document = read_yaml(pointer)
    except (UserError, OSError):
        return False
    outs = document.get("outs") if isinstance(document, dict) else None
    return (
        isinstance(outs, list)
        and document.keys() <= {"outs", "md5", "desc", "meta"}
        and all(isinstance(out, dict) and out.get("path") == pointer.stem for out in outs)
    )


def _untraced(params: Params, stages: dict[str, StageSpec]) -> Iterator[str]:
    for key, path, stage in named_paths(params):
        if path and stage in stages and (why := why_not_traced(path, stages[stage].deps)):
            yield f"{PARAMS}: {key}: {why}"


def _moving(params: Params) -> Iterator[str]:
    """Git revisions that can later mean another commit, without a change of any hash."""
    for number, source in enumerate(params.ingest.sources):
        if source.kind != "git" or len(source.revision) == COMMIT_DIGITS or not Path(source.path).exists():
            continue
        from codex_ml.ingest.readers.git_repository import (
            refuse_moving_revision,  # costs more than the rest of the check
        )

        try:
            refuse_moving_revision(source)
        except UserError as error:
            yield f"{PARAMS}: ingest.sources.{number}: {error}"


def named_paths(params: Params) -> Iterator[tuple[str, str, str]]:
    """(key, path, the stage that reads it) of everything on disk that params.yaml names; "" for none."""
    for number, source in enumerate(params.ingest.sources):
        yield f"ingest.sources.{number}.path", source.path, "ingest"
    for number, benchmark in enumerate(params.split.benchmarks):
        yield f"split.benchmarks.{number}.path", benchmark.path, "split"
    yield "tokenizer.path", params.tokenizer.path, "tokenizer"
    yield "model.path", params.model.path, "train"
    yield "train.resume_from", params.train.resume_from, "train"
