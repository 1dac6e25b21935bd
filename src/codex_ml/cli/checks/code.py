"""Checks of the library for `codex-ml check`: DVC can hash its folders, and Git tracks each of their files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.history.git_commands import run_git
from codex_ml.core.dvcignore import FILE as IGNORE_FILE
from codex_ml.core.pipeline import PIPELINE, StageSpec
from codex_ml.core.tree import scan

SHOWN = 5  # files in a message


def code_problems(stages: dict[str, StageSpec]) -> Iterator[str]:
    """Problems of the scripts and the folders of the library, one line each."""
    files = []
    for dep in sorted({dep for spec in stages.values() for dep in spec.code if Path(dep).exists()}):
        if not Path(dep).is_dir():
            files.append(dep)
            continue
        for entry in scan(Path(dep)):
            if entry.problem:
                yield entry.problem
            elif entry.is_file:
                files.append(f"{dep}/{entry.name}")
    yield from _untracked(files)


def _untracked(files: list[str]) -> Iterator[str]:
    """Files that are in a hash but not in Git: a clone would get other hashes, and other results."""
    tracked = {os.fsdecode(name) for name in run_git("ls-files", "-z").stdout.split(b"\0")}
    if str(PIPELINE) not in tracked:
        return  # this folder is not under Git, or lies in a repository that has nothing of it
    missing = [shlex.quote(file) for file in files if file not in tracked]
    if missing:
        more = f" (and {len(missing) - SHOWN} more)" if len(missing) > SHOWN else ""
        yield (
            f"DVC hashes {', '.join(missing[:SHOWN])}{more} with the code of a stage, but Git does not track it, so a "
            f"clone would lack this code: run `git add {' '.join(missing[:SHOWN])}`, or list it in {IGNORE_FILE}"
        )
