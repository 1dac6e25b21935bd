"""Read the split ledger: the split to which each content was dealt. Lines are added and never removed.

The folder `data/split_ledger` holds the lines: in one file `all.txt`, which Git merges, or in 256 files `00.txt` to
`ff.txt` by the first byte of `content`, which DVC tracks. The ledger is the union of the lines of all its .txt files.
So both forms mean the same, and so does every merge of them. `forgotten.txt` lists contents whose lines do not count.
`line_format` defines a line, and `answers` defines the meaning of the lines together.
Used by: split, check, and the commands `codex-ml ledger`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from codex_ml.core.errors import Reason, UserError, naming
from codex_ml.core.paths import FORGOTTEN
from codex_ml.split.ledger.answers import Ledger
from codex_ml.split.ledger.forgotten import read_forgotten
from codex_ml.split.ledger.line_format import HEADER, Columns, Contents, Lines, Text, blocks_of, decoded, salt_mark
from codex_ml.split.ledger.shards import ALL, LedgerHash, disjoint, in_own_shard

NEW = Path("data/splits/new_ledger.txt")

_DEALT_WITH = "# dealt with "


def read_ledger(folder: Path, *, salt: str) -> Ledger:
    """Read a ledger. A folder with an empty file is an empty ledger.

    Raises:
        UserError: for a missing folder, a ledger of the former form, a foreign file, a malformed line (the message
            names file and line) or a ledger that was dealt with another salt.
    """
    refuse_former(folder)
    forgotten, salt_hash = read_forgotten(folder / FORGOTTEN), salt_mark(salt)
    try:
        return _ledger_of(_one_by_one(folder, salt_hash), forgotten)
    except _MisplacedLinesError:
        return _ledger_of(disjoint(read_folder(folder, mark=salt_hash)), forgotten)


def _ledger_of(batches: Iterable[tuple[Lines, Columns]], forgotten: Contents) -> Ledger:
    """The ledger of these lines, with its mark. The batches are read once, and memory holds one of them."""
    ledger_hash = LedgerHash()

    def hashed() -> Iterator[Columns]:
        for lines, columns in batches:
            ledger_hash.add(lines, columns)
            yield columns

    ledger = Ledger.of(hashed(), forgotten)
    return replace(ledger, mark=ledger_hash.mark(forgotten))


class _MisplacedLinesError(Exception):
    """Lines of one content may be in several files, so all files must be read together."""


def _one_by_one(folder: Path, mark: str) -> Iterator[tuple[Lines, Columns]]:
    """Yield the lines file by file; of 256 files only one is in memory at a time."""
    paths = ledger_files(folder)
    for path in paths:
        text, columns = _read_file(path, mark)
        if len(paths) > 1 and len(columns) and not in_own_shard(path.name, columns):
            raise _MisplacedLinesError
        yield text.lines, columns


def refuse_former(folder: Path) -> None:
    """Refuse to work if there is a ledger of the former form.

    Raises:
        UserError: names the command that converts it.
    """
    former = folder.with_name(f"{folder.name}.ndjson")
    if former.exists():
        raise UserError(f"{former} is a ledger of the former form; run `codex-ml ledger convert`; it moves no document")


def refuse_file(folder: Path) -> None:
    """Refuse a ledger that is a file.

    Raises:
        UserError: names the file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; a ledger is a folder of text files, so move this file away")


def ledger_files(folder: Path) -> list[Path]:
    """The files with the lines of a ledger, sorted by name.

    Raises:
        UserError: when the folder is missing or holds something else.
    """
    refuse_file(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is missing; start a new ledger with `mkdir {folder}` and `touch {folder / ALL}`, or set "
            "split.ledger: false"
        )
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # .gitignore, and temporary files of a killed command
            continue
        if path.suffix != ".txt" or not path.is_file():
            reason = "{} is not part of a ledger, which holds only text files named *.txt; move it out of {}"
            raise UserError(Reason(reason, str(path), str(folder)))  # a name may hold line ends
        if path.name != FORGOTTEN:
            found.append(path)
    return found


def read_folder(folder: Path, *, mark: str = "") -> dict[str, tuple[Text, Columns]]:
    """File name -> text and fields, for all files.

    Args:
        mark: `salt_mark` of split.salt; "" accepts any salt, but all files must have the same.
    """
    texts = {}
    for path in ledger_files(folder):
        text, columns = _read_file(path, mark)
        mark = mark or text.salt
        texts[path.name] = text, columns
    return texts


def _read_file(path: Path, mark: str) -> tuple[Text, Columns]:
    text, columns = decoded(path.read_bytes(), str(path))
    if mark and text.salt not in ("", mark):
        raise UserError(
            f"{path}:1: this ledger was dealt with another split.salt; set that salt again, or start an empty ledger "
            "to deal all documents again (earlier test results can then not be compared)"
        )
    return text, columns


def write_new_lines(path: Path, lines: Lines, *, salt: str, mark: str) -> None:
    """Write the lines that a split adds to the ledger, into a folder that is not yet published.

    Args:
        mark: mark of the ledger with which the documents were dealt.
    """
    with naming(path), path.open("wb") as file:
        file.write(f"{HEADER}{salt_mark(salt)}\n{_DEALT_WITH}{mark}\n".encode())
        file.writelines(blocks_of(lines))


def read_new_lines(path: Path) -> tuple[Text, str]:
    """(lines, mark) that `write_new_lines` wrote.

    Raises:
        UserError: when the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; `dvc repro split` makes it")
    head, _, rest = path.read_bytes().partition(b"\n")
    second, _, body = rest.partition(b"\n")
    mark = re.fullmatch(f"{_DEALT_WITH}([0-9a-f]{{16}})", second.decode("ascii", "replace"))
    if not mark:
        raise UserError(
            f"{path}:2: this line must be `{_DEALT_WITH}<16 digits>`; `dvc repro split` writes the file again"
        )
    return decoded(head + b"\n" + body, str(path))[0], mark[1]
