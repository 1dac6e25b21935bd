"""Write the split ledger: accept the lines that a split added, and convert the former form.

Each file is written whole and atomically, and a file is removed only after its lines are in other files. So a killed
command loses no line, and running it again completes it. Used by: `codex-ml ledger`, `codex-ml merge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.core.io import fsync_folder, write_bytes
from codex_ml.core.paths import FORGOTTEN
from codex_ml.split.ledger.folder import ledger_files, read_folder, read_new_lines, refuse_file, refuse_former
from codex_ml.split.ledger.forgotten import read_forgotten, read_tombstones, write_tombstones
from codex_ml.split.ledger.former import read_former
from codex_ml.split.ledger.line_format import Columns, Lines, Text, bytes_of, columns_of, missing, no_lines, unite_texts
from codex_ml.split.ledger.shards import ALL, SHARDS, disjoint, mark_of, shards_of

LINES_IN_ONE_FILE = 100_000  # 3.8 MB: Git still shows and merges such a file without delay


@dataclass(frozen=True)
class LedgerChange:
    """The change that a command made to the ledger.

    Attributes:
        added: number of new lines.
        lines: number of all lines after the change.
        next_steps: commands that bring Git and DVC up to date.
    """

    added: int
    lines: int
    next_steps: list[str]


def accept_new_lines(new: Path, folder: Path) -> LedgerChange:
    """Add the lines of the last split to the ledger.

    Repeating the command, also after a kill at any moment, gives the same result.

    Raises:
        UserError: when the file of new lines is missing, or its lines were dealt with another ledger.
    """
    refuse_former(folder)
    text, mark = read_new_lines(new)
    batches = disjoint(read_folder(folder, mark=text.salt))
    before = [(rest, _columns(rest)) for lines, _ in batches if len(rest := missing(lines, text.lines))]
    if mark_of(before, read_forgotten(folder / FORGOTTEN)) != mark:
        raise UserError(
            f"{new} was dealt with another ledger than the one in {folder}; run `dvc repro split`, which uses the "
            "present one, then accept again"
        )
    return write_folder(folder, [lines for lines, _ in batches] + [text.lines], text.salt)


def rewrite(folder: Path) -> LedgerChange:
    """Write the folder in its canonical form: distinct sorted lines in one file, or in shards if there are many."""
    texts = read_folder(folder)
    salt = next((text.salt for text, _ in texts.values() if text.salt), "")
    return write_folder(folder, [text.lines for text, _ in texts.values()], salt)


def write_folder(folder: Path, lines: Sequence[Lines], salt: str) -> LedgerChange:
    """Write the lines to the folder, in one file or in shards, depending on their number.

    Args:
        lines: must include all lines of the present files.
        salt: the salt mark for the headers; "" for an empty ledger.
    """
    refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    present = sum(map(len, (text.lines for text, _ in read_folder(folder).values())))
    shards = _by_shard(lines)
    count = sum(map(len, shards.values()))
    if count < LINES_IN_ONE_FILE:
        everything = unite_texts(Text(salt, part) for part in shards.values()).lines if shards else no_lines()
        files = {ALL: bytes_of(Text(salt, everything))}
    else:
        files = {SHARDS[number]: bytes_of(Text(salt, part)) for number, part in shards.items()}
    for name, data in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)
    for path in ledger_files(folder):
        if path.name not in files:
            path.unlink()
    if (tombstones := folder / FORGOTTEN).is_file():  # a merge by lines leaves them in any order
        write_tombstones(tombstones, read_tombstones(tombstones.read_bytes(), str(tombstones)))
    fsync_folder(folder)
    return LedgerChange(count - present, count, next_steps(folder))


def _by_shard(lines: Sequence[Lines]) -> dict[int, Lines]:
    pieces: dict[int, list[Lines]] = {}
    for part in lines:
        shard = shards_of(_columns(part))
        for number in np.unique(shard).tolist():
            pieces.setdefault(number, []).append(part[shard == number])
    return {number: np.unique(np.concatenate(pieces[number])) for number in sorted(pieces)}


def _columns(lines: Lines) -> Columns:
    columns = columns_of(lines)
    assert columns is not None, "lines are checked where they are read"
    return columns


def next_steps(folder: Path) -> list[str]:
    """The commands that add the folder to Git, or to DVC if it is in shards."""
    pointer = folder.with_name(f"{folder.name}.dvc")
    if (folder / ALL).is_file():
        return [*([f"dvc remove {pointer}"] if pointer.exists() else []), f"git add {folder}"]
    leave_git = [] if pointer.exists() else [f"git rm -r --cached --quiet --ignore-unmatch {folder}"]
    return [*leave_git, f"dvc add {folder}", f"git add {pointer} {pointer.with_name('.gitignore')}"]


def convert_former(former: Path, folder: Path) -> LedgerChange:
    """Read a ledger of the former form into the folder, then remove its file. No document moves.

    Raises:
        UserError: when the file is missing, or for a malformed line, which the message names.
    """
    if not former.is_file():
        raise UserError(f"{former} is missing, so there is nothing to convert; {folder} has the present form")
    text = read_former(former)
    present = [found for found, _ in read_folder(folder).values()] if folder.is_dir() else []
    united = unite_texts([text, *present])
    result = write_folder(folder, [united.lines], united.salt)
    former.unlink()
    pointer = former.with_name(f"{former.name}.dvc")
    steps = [f"dvc remove {pointer}"] if pointer.exists() else [f"git rm --cached --quiet --ignore-unmatch {former}"]
    return LedgerChange(result.added, result.lines, steps + result.next_steps)
