"""The part of `codex-ml merge` that unites the split ledger, kept by Git or DVC: no line of any side is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.cli.history.git_commands import INDEX, OURS, THEIRS, Files, Sides, change_index, files_of_commit, git_text
from codex_ml.cli.history.versions import (
    FOLDER,
    FORMER,
    PATHS,
    POINTER,
    Version,
    before_head,
    text_of,
    version_in_folder,
    version_of,
)
from codex_ml.cli.param_rules import load_params
from codex_ml.core.conflicts import conflict_in, conflict_line, without_markers
from codex_ml.core.errors import UserError, one_line
from codex_ml.core.io import write_bytes, write_text
from codex_ml.core.paths import FORGOTTEN

if TYPE_CHECKING:
    from codex_ml.split.ledger.line_format import Text

IGNORE = Path("data/.gitignore")  # where `dvc add` names the folder
HEADERS = (b"# codex-ml/ledger/", b'{"schema"')  # of today's form and of the former one


@dataclass
class United:
    """What was done to the ledger.

    Attributes:
        lines: of the ledger.
        brought: lines that HEAD lacks.
        added: lines that the folder lacked.
        tombstones: of the ledger.
        left: path -> what people must do.
        next_steps: commands for Git.
    """

    lines: int = 0
    brought: int = 0
    added: int = 0
    tombstones: int = 0
    left: dict[str, str] = field(default_factory=dict)
    next_steps: list[str] = field(default_factory=list)


def unite_ledger(sides: Sides, commits: Sequence[str] = ()) -> United:
    """Write the union of all sides' lines and tombstones in canonical form, and add it to Git or DVC.

    Args:
        commits: other commits whose lines count.
    """
    from codex_ml.split.ledger.edits import write_folder
    from codex_ml.split.ledger.line_format import missing, unite_texts
    from codex_ml.split.ledger.shards import ALL

    here, versions = version_in_folder(), _versions(sides, commits)
    if not any(version.parts or version.unreadable for version in [*versions, here]):
        return United()
    if unreadable := [version.unreadable for version in versions if version.unreadable]:
        return United(left={POINTER: f"{unreadable[0]}, then run `codex-ml merge` again"})
    try:
        mark = _one_salt(list(_texts([*versions, here])))
        _refuse_to_drop(here, mark, versions)
    except UserError as error:
        return United(left={FOLDER: str(error)})
    before = unite_texts(text for text in _texts([here]) if text.salt in ("", mark))
    united = unite_texts([before, *(text for text in _texts(versions) if text.salt in ("", mark))])
    tombstones = set[tuple[str, str]]().union(*(version.tombstones() for version in [*versions, here]))
    head = unite_texts(text for text in _texts(versions[:1]) if text.salt in ("", mark))
    done = United(
        lines=len(united.lines),
        brought=len(missing(united.lines, head.lines)),
        added=len(missing(united.lines, before.lines)),
        tombstones=len(tombstones),
    )
    _make_readable(mark)
    if tombstones:
        _write_changed(Path(FOLDER, FORGOTTEN), "".join(f"{c} {reason}\n" for c, reason in sorted(tombstones)))
    write_folder(Path(FOLDER), [united.lines], united.salt)
    Path(FORMER).unlink(missing_ok=True)
    pointed = any(POINTER in files.blobs for files in (*sides.commits, *sides.index.values()))
    _hand_over(sides, done, in_dvc=pointed or not Path(FOLDER, ALL).is_file())
    return done


def _versions(sides: Sides, commits: Sequence[str]) -> list[Version]:
    """The ledger of each side, without the common ancestor: its lines are in the sides."""
    index = (sides.index[stage] for stage in (0, OURS, THEIRS))
    more = (files_of_commit(commit) for commit in commits)
    versions = [version_of(_ledger_of(files)) for files in (*sides.commits, *index, *more)]
    return versions + [version for version in before_head() if _is_whole(version)]


def _is_whole(version: Version) -> bool:
    try:
        list(version.texts())
        version.tombstones()
    except UserError:  # damaged in the past
        return False
    return True


def _ledger_of(files: Files) -> Files:
    folder = f"{FOLDER}/"
    return Files(files.name, {p: b for p, b in files.blobs.items() if p in PATHS or p.startswith(folder)})


def _texts(versions: list[Version]) -> Iterator[Text]:
    """The lines of each file; equal files count once.

    Git may have merged ledgers of two salts line by line, in the index and in the folder. Such a file is skipped: its
    lines are in the sides.
    """
    seen: set[str] = set()
    for version in versions:
        for part in version.parts:
            if part.name == FORGOTTEN or part.key in seen:
                continue
            seen |= {part.key} - {""}
            if version.name in (FOLDER, INDEX) and _has_two_salts(part.read()):
                continue
            yield text_of(part)


def _one_salt(texts: list[Text]) -> str:
    """The mark of the salt whose lines count: the one that all have, or that of params.yaml.

    Raises:
        UserError: when there are two and params.yaml does not say which.
    """
    from codex_ml.split.ledger.line_format import salt_mark

    salts = {text.salt for text in texts} - {""}
    if len(salts) < 2:
        return next(iter(salts), "")
    try:
        mark = salt_mark(load_params().split.salt)
    except UserError:
        mark = ""
    if mark not in salts:
        raise UserError(
            "the sides were split with different values of split.salt; set split.salt in params.yaml, which decides "
            "whose lines count, then run `codex-ml merge` again"
        )
    return mark


def _has_two_salts(data: bytes) -> bool:
    return len({line.strip() for line in data.split(b"\n") if line.startswith(HEADERS)}) > 1


def _is_of_other_salt(data: bytes, mark: str) -> bool:
    first = data.split(b"\n", 1)[0]
    return _has_two_salts(data) or (first.startswith(HEADERS) and mark.encode() not in first)


def _refuse_to_drop(here: Version, mark: str, versions: list[Version]) -> None:
    """Refuse where lines of another salt would be dropped that are in no commit.

    Raises:
        UserError: naming the file.
    """
    known: set[bytes] = set()
    for part in here.parts:
        data = part.read()
        if part.name == FORGOTTEN or not _is_of_other_salt(data, mark):
            continue
        known = known or {line.strip() for v in versions for each in v.parts for line in each.read().split(b"\n")}
        if lines := {line.strip() for line in without_markers(data).split(b"\n")} - known - {b""}:
            raise UserError(
                f"{part.place} was split with another split.salt than params.yaml has, and {len(lines)} of its lines "
                "are in no commit; restore that salt or move the file out of data, then run `codex-ml merge` again"
            )


def _make_readable(mark: str) -> None:
    """Remove from the folder what its writer cannot read: conflict markers, and ledgers of another salt."""
    for path in Path(FOLDER).glob("*.txt"):
        data = path.read_bytes()
        if _is_of_other_salt(data, mark):
            path.unlink()  # its lines are in Git
        elif conflict_line(data):
            write_bytes(path, without_markers(data))


def _write_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def _hand_over(sides: Sides, done: United, *, in_dvc: bool) -> None:
    """Add the folder to Git or to DVC; after a conflict, it may be in neither."""
    tracked = {*sides.unmerged, *sides.index[0].blobs}
    if former := [path for path in (FORMER, f"{FORMER}.dvc") if path in tracked]:
        change_index("rm", "--quiet", "--cached", "--force", "--", *former)
        Path(f"{FORMER}.dvc").unlink(missing_ok=True)
    files = [FOLDER]
    if in_dvc:
        if any(path.startswith(f"{FOLDER}/") for path in tracked):
            change_index("rm", "-r", "--quiet", "--cached", "--force", "--", FOLDER)
        if why := _add_to_dvc(sides):
            done.left[POINTER] = why
            return
        files = [file for file in (POINTER, IGNORE.as_posix()) if Path(file).is_file()]
    if sides.in_progress:
        change_index("add", "--force", "--", *files)
    elif git_text("status", "--porcelain", "--", *files):
        done.next_steps.append(f"git add {' '.join(files)}")


def _add_to_dvc(sides: Sides) -> str:
    """Update the pointer to the folder as it is; returns "" or what people must do first."""
    pointer = Path(POINTER)
    if POINTER in sides.unmerged or not pointer.is_file() or conflict_in(pointer):
        data = next((d for stage in (OURS, THEIRS, 0) if (d := sides.index[stage].read(POINTER))), None)
        if data is not None:  # any version: `dvc add` replaces the hash and keeps the rest
            write_bytes(pointer, data)
    command = [sys.executable, "-P", "-m", "dvc", "add", "--quiet", FOLDER]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if not run.returncode:
        return ""
    said = one_line(run.stderr)
    return f"the ledger is united, but `dvc add {FOLDER}` failed ({said}); fix that, then run `codex-ml merge` again"
