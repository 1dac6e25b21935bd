"""Files where Python could find them in place of another module: in src, stages, the top folder, and by PYTHONPATH.

`python -P` does not look into stages or the top folder, and a stage whose modules come from there fails
(core.loaded_code). A Python without -P does look there. So such a file is refused before any work, whether it would be
imported or not.

Used by: core.stage, `codex-ml check`, `codex-ml verify`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import codex_ml
from codex_ml.core.byte_code import other_byte_code
from codex_ml.core.errors import UserError
from codex_ml.core.namesakes import all_in_one, importable, namesakes
from codex_ml.core.pipeline import PIPELINE, ROOTS, StageSpec
from codex_ml.core.syntax_tree import syntax_digest

# Of the file that each stage imports first and that no stage depends on, so that a new version makes none stale.
VERSION = re.compile(rb'^__version__ = "[^"\n\\]*"$', re.MULTILINE)
ROOT_SYNTAX = "25976c7b02af935d5327c405f0151c23bf88ec58769349d9d30c53ac6452eef7"


def refuse_planted_files(stages: Mapping[str, StageSpec]) -> None:
    """Refuse the files of `planted_files`.

    Raises:
        UserError: names them on one line.
    """
    if found := list(planted_files(stages)):
        raise UserError(all_in_one(found))


def planted_files(stages: Mapping[str, StageSpec]) -> Iterator[str]:
    """One message per file that could be imported in place of another module, or beside the code that is recorded."""
    if os.environ.get("PYTHONHOME"):
        yield "PYTHONHOME: it is set, so Python's own modules may come from another place; unset it"
    for folder in ("src", "stages"):
        for name, path in importable(folder):
            if path != "src/codex_ml" and not any(_touches(spec, Path(path)) for spec in stages.values()):
                why = f"Python could import it as {name}, and no stage declares it"
                yield f"{path}: {why}; remove it, or add it to deps in {PIPELINE}"
    yield from namesakes()
    yield from other_byte_code()
    root = Path(codex_ml.__file__)
    if syntax_digest(VERSION.sub(b"", root.read_bytes())) != ROOT_SYNTAX:
        yield f"{ROOTS[0]}: it is in no record, so it may hold the version only; move other code into a module"


def _touches(spec: StageSpec, path: Path) -> bool:
    """Whether a stage depends on a file, or on something below a folder."""
    return spec.reads(path.as_posix()) or any(Path(dep).is_relative_to(path) for dep in spec.deps)
