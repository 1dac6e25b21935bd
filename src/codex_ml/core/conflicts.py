"""The conflict markers that a Git merge leaves in a file: one definition for the commit hook, `check` and all readers.

Git writes `<<<<<<< ours`, `||||||| base` (styles diff3 and zdiff3), `=======` and `>>>>>>> theirs` at the start of a
line. `=======` alone can also underline a heading, so it counts only in files that have no headings.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from codex_ml.core.errors import Reason, UserError
from codex_ml.core.paths import SPLIT_LEDGER

# Data files, in which no line may consist of seven equals signs.
NO_HEADINGS = (
    ".yaml", ".yml", ".dvc", ".lock", ".json", ".jsonl", ".ndjson", ".ipynb", ".toml", ".csv", ".tsv",
)  # fmt: skip
DOCUMENTS = "data/raw"  # a document there may quote conflict markers
POINTERS = (".dvc", ".gitignore")  # the project's own files among the documents
MARKERS = Reason("conflict markers of a merge; keep the lines that you want of both sides, delete the markers")
_SIGNS = (b"<<<<<<<", b">>>>>>>", b"|||||||", b"=======")
# A table row may begin with seven bars, but more bars follow.
_IN_TEXT = re.compile(rb"^(?:<{7}|>{7}) \S|^\|{7} [^|\r\n]+\r?$", re.MULTILINE)
_IN_DATA = re.compile(rb"^(?:<{7}|>{7}|\|{7})(?: |\r?$)|^={7}\r?$", re.MULTILINE)


def conflict_line(data: bytes | str, *, headings: bool = False) -> int | None:
    """The line, from 1, of the first conflict marker; None where there is none.

    Args:
        headings: whether `=======` may underline a heading, as in prose and in Python.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not any(sign in data for sign in _SIGNS):  # the usual case, at the speed of memchr
        return None
    found = (_IN_TEXT if headings else _IN_DATA).search(data)
    return data.count(b"\n", 0, found.start()) + 1 if found else None


def starts_with_marker(text: str, *, headings: bool) -> bool:
    """Whether a table cell is a conflict marker. It runs for each record, so it looks at one character first."""
    return text[:1] in ("<", ">", "|", "=") and conflict_line(text.split("\n", 1)[0], headings=headings) is not None


def without_markers(data: bytes) -> bytes:
    """Remove conflict markers and keep the lines of both sides, for a file that is a set of lines."""
    if not conflict_line(data):
        return data
    return b"".join(line for line in data.splitlines(keepends=True) if not conflict_line(line))


def refuse_conflict(data: bytes | str, name: str, *, first_line: int = 1) -> None:
    """Refuse the text of a file without headings that holds conflict markers.

    A reader of YAML calls it before it parses. A reader of JSON calls it after an error: valid JSON holds no marker.

    Args:
        name: the file, for the message.
        first_line: the number of the first line of `data` in the file.

    Raises:
        UserError: with file, line and what to do.
    """
    if line := conflict_line(data):
        raise UserError(_message(name, line + first_line - 1))


def conflict_in(path: Path, name: str = "") -> str | None:
    """A message about the conflict markers of a file; None if it has none, is binary, or is a document of `data/raw`.

    Args:
        name: of the file, for the message; its path by default.
    """
    name = name or path.as_posix()
    document = path.is_relative_to(DOCUMENTS) and not name.endswith(POINTERS)
    if document or path.is_symlink() or not path.is_file():
        return None
    data = path.read_bytes()
    line = None if b"\0" in data else conflict_line(data, headings=has_headings(name))
    return _message(name, line) if line else None


def has_headings(name: str) -> bool:
    """Whether a file of that name may have a line of equals signs that is not a conflict marker."""
    return not (name.endswith(NO_HEADINGS) or PurePosixPath(name).is_relative_to(SPLIT_LEDGER))


def conflicts(files: list[str]) -> Iterator[str]:
    """One message per file of the project that holds conflict markers.

    Args:
        files: paths that Git tracks. Of these, the .dvc files and all files below data and reports are read;
            the files of `ALWAYS_READ` are read in any case.
    """
    ours = [name for name in files if name.endswith(POINTERS) or name.startswith(("data/", "reports/"))]
    yield from filter(None, (conflict_in(Path(name)) for name in dict.fromkeys([*ALWAYS_READ, *ours])))


ALWAYS_READ = (
    "params.yaml", "dvc.yaml", "dvc.lock", "models/presets.yaml", "requirements.lock", "torch.lock", ".dvc/config",
    ".dvcignore", ".gitignore", ".gitattributes",
)  # fmt: skip


def _message(name: str, line: int) -> str:
    if name == "dvc.lock" or name.startswith(("reports/", str(SPLIT_LEDGER))):
        advice = "`codex-ml merge` resolves results and the split ledger, then `dvc repro` updates the results"
    else:
        advice = f"keep the lines that you want of both sides, delete the markers, then `git add {shlex.quote(name)}`"
    return f"{name}:{line}: conflict markers of a merge; {advice}"
