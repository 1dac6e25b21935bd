"""Find the edits of code after a run, and prove which of them change nothing but comments, docstrings and layout.

The record of a stage has the digest of the syntax tree of each Python file that ran. Where the present file has the
same digest, it is the same program. So the record need not change: it names the file that ran.

Used by: verify, lineage, plan, accept-code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from codex_ml.cli.history.git_commands import files_of_commit, git_text
from codex_ml.cli.history.listing import cached
from codex_ml.core.hashing import hash_file, hash_path
from codex_ml.core.pipeline import Locked
from codex_ml.core.record import CODE, parse_record, read_record, record_path
from codex_ml.core.strict_json import parse_json_file
from codex_ml.core.syntax_tree import ENDING, syntax_digest, text_readers
from codex_ml.core.tree import rules_for

ONLY = "comments, docstrings or layout"
# Places where the code of stages may read a docstring: the help of the stage scripts.
READS_FOR_HELP = {"src/codex_ml/core/stage.py": 1}


@dataclass(frozen=True)
class CodeEdit:
    """A file of code that is not the one that ran.

    Attributes:
        path: relative to the top folder.
        ran: MD5 of the file that ran; "" where there was none.
        syntax: digest of the syntax tree of the file that ran, which the present one shares if there is no problem.
        problem: "", or why the edit may change a result.
    """

    path: str
    ran: str
    syntax: str = ""
    problem: str = ""


@dataclass(frozen=True)
class CodeVersion:
    """A dependency that is code, as it is somewhere.

    Attributes:
        md5: as dvc.lock has it.
        files: name -> MD5; of a script, its own name.
        digest: name -> digest of the syntax tree.
    """

    path: str
    md5: str
    files: Mapping[str, str]
    digest: Callable[[str], str]

    def edits_since(self, recorded: Mapping[str, Any]) -> list[CodeEdit]:
        """The files that differ from those of a record.

        Args:
            recorded: the entry of this dependency, see `codex_ml.core.record.RecordedHashes`.
        """
        ran = recorded.get("files") or {PurePosixPath(self.path).name: recorded["md5"]}
        syntax = recorded.get("syntax", {})
        changed = sorted(name for name in ran.keys() | self.files.keys() if ran.get(name) != self.files.get(name))
        return [self._edit(name, ran.get(name, ""), syntax.get(name, "")) for name in changed]

    def _edit(self, name: str, ran: str, syntax: str) -> CodeEdit:
        path = file_in(self.path, name)
        if name not in self.files:
            return CodeEdit(path, ran, problem="was removed")
        if not ran:
            return CodeEdit(path, ran, problem="was added")
        if not name.endswith(ENDING):
            return CodeEdit(path, ran, problem="was changed, and only in Python files can an edit be without effect")
        if not syntax:
            why = "was changed, and the record has no digest of its syntax tree; the next run of the stage writes one"
            return CodeEdit(path, ran, problem=why)
        problem = "" if self.digest(name) == syntax else f"was changed in more than {ONLY}"
        return CodeEdit(path, ran, syntax, problem)


def file_in(dep: str, name: str) -> str:
    """The path of a file of a dependency: a folder, or a script that is itself the file."""
    return dep if dep.endswith(ENDING) else f"{dep}/{name}"


def code_here(path: str) -> CodeVersion:
    """A dependency as it is in the workspace."""
    files: dict[str, str] = {}
    md5 = hash_path(Path(path), listing=files).md5
    files = files or ({PurePosixPath(path).name: md5} if path.endswith(ENDING) else {})
    return CodeVersion(path, md5, files, lambda name: _digest(file_in(path, name), files[name]))


@cache  # a folder of the library is a dependency of many stages
def _digest(path: str, md5: str) -> str:
    source = Path(path).read_bytes()
    return syntax_digest(source) if _md5(source) == md5 else ""  # edited since it was hashed


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@cache
def _readers(path: str, md5: str) -> int:
    return text_readers(Path(path).read_bytes())


@cache
def code_of_commit(commit: str, path: str) -> CodeVersion:
    """A dependency as a commit has it, without what DVC ignores."""
    tracked = files_of_commit(commit, path)
    rules, prefix = rules_for(Path(path))
    if path in tracked.blobs:
        data = {PurePosixPath(path).name: tracked.read(path) or b""}
    else:
        inside = {place.removeprefix(f"{path}/"): place for place in tracked.blobs}
        kept = [name for name in inside if not rules.ignores(prefix + name, is_folder=False)]
        data = {name: tracked.read(inside[name]) or b"" for name in sorted(kept)}
    files = {name: _md5(text) for name, text in data.items()}
    listed = json.dumps([{"md5": md5, "relpath": name} for name, md5 in files.items()], sort_keys=True)
    md5 = files[PurePosixPath(path).name] if path in tracked.blobs else f"{_md5(listed.encode())}.dir"
    return CodeVersion(path, md5, files, lambda name: syntax_digest(data[name]))


def is_same_program(path: str, md5: str, recorded: Mapping[str, Any], commit: str | None) -> bool:
    """Whether the code that dvc.lock has differs only in comments, docstrings and layout from that of a record."""
    edits = edits_in_lock(path, md5, recorded, commit)
    return edits is not None and not any(edit.problem for edit in edits)


def edits_in_lock(path: str, md5: str, recorded: Mapping[str, Any], commit: str | None) -> list[CodeEdit] | None:
    """The files in which the code that dvc.lock has differs from that of a record; None where that code is not known.

    Args:
        path: a dependency of the stage.
        md5: of it in dvc.lock.
        recorded: the entry of the record.
        commit: whose dvc.lock it is; None for the workspace, whose code may have been edited since. Then HEAD may have
            the code of dvc.lock.
    """
    if not path.startswith(CODE):
        return None
    here = [code_here(path)] if commit is None and Path(path).exists() else []
    known = next((now for now in here if now.md5 == md5), None) or code_of_commit(
        commit or git_text("rev-parse", "HEAD"), path
    )
    return known.edits_since(recorded) if known.md5 == md5 else None


def record_of_run(stage: str, locked: Locked) -> dict[str, Any] | None:
    """The record of the run that dvc.lock has: the file in the workspace may be that of a run that was killed since.

    Returns:
        None where neither the workspace nor DVC's cache has it.

    Raises:
        UserError: when it is not a record.
    """
    file = record_path(stage)
    md5 = locked.outs.get(str(file), "")
    if file.is_file() and hash_file(file).md5 == md5:
        return read_record(stage)
    data = cached(md5) if md5 else None
    return None if data is None else parse_record(parse_json_file(data, str(file)), str(file))


@dataclass(frozen=True)
class EditedCode:
    """A dependency that is code, in the workspace: its MD5 as dvc.lock has it, and the files that did not run."""

    md5: str
    edits: tuple[CodeEdit, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether only comments, docstrings and layout changed."""
        return not any(edit.problem for edit in self.edits)


def edited_code(record: Mapping[str, Any]) -> dict[str, EditedCode]:
    """Dependency -> its edits, for the code that the stage of a record depends on.

    An edit is a problem too where the code of the stage reads docstrings or its own text.
    """
    code = {path: code_here(path) for path in record["deps"] if path.startswith(CODE) and Path(path).exists()}
    found = {path: EditedCode(now.md5, tuple(now.edits_since(record["deps"][path]))) for path, now in code.items()}
    if not any(not edit.problem for edited in found.values() for edit in edited.edits):
        return found
    if not (reader := _reader_of_text(code)):
        return found
    why = f"was changed, and {reader} reads docstrings or the text of programs"
    return {
        path: EditedCode(old.md5, tuple(replace(edit, problem=edit.problem or why) for edit in old.edits))
        for path, old in found.items()
    }


def _reader_of_text(code: Mapping[str, CodeVersion]) -> str:
    """A file that reads docstrings or the text of programs, not only for help; "" where none does."""
    for path, version in code.items():
        for name, md5 in version.files.items():
            file = file_in(path, name)
            if name.endswith(ENDING) and _readers(file, md5) > READS_FOR_HELP.get(file, 0):
                return file
    return ""
