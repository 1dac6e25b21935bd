"""The split ledger: which content was ever dealt to which split. Lines are added and never removed.

The folder `data/split_ledger` holds the lines: in one file `all.txt`, which Git merges, or in 256 files `00.txt` to
`ff.txt` by the first byte of `content`, which DVC keeps. The union of the lines of all its .txt files is the ledger, so
both forms mean the same, and so does every merge of them. `forgotten.txt` names contents whose lines do not count any
more. What a line says is in `ledger_lines`.

Where histories disagree, the cleanest answer wins, in whatever order they were merged: test over val over train over
pool. The answer for one content is its cleanest line; of equally clean ones a kept document counts before a duplicate,
and then the smallest line. A unit belongs to the cleanest split of its kept lines, or of its duplicates if none is
kept.
Used by: split, check, and the commands `codex-ml ledger`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import Reason, UserError, naming
from codex_ml.split.ledger.line_format import (
    FIELDS,
    HEADER,
    Columns,
    Lines,
    Text,
    blocks_of,
    columns_of,
    decoded,
    lines_of,
    no_lines,
    salt_mark,
)

FOLDER = Path("data/split_ledger")
NEW = Path("data/splits/new_ledger.txt")
ALL = "all.txt"
FORGOTTEN = "forgotten.txt"
SHARDS = tuple(f"{number:02x}.txt" for number in range(256))
SPLITS = ("train", "val", "test", "pool")
SPLIT_OF_RANK = np.array([2, 2, 1, 1, 0, 0, 3, 3], dtype=np.int8)  # TtVvRrPp as indices in SPLITS
RANKS = np.array([4, 2, 0, 6], dtype=np.uint8)  # of a kept document, by index in SPLITS; one more for a duplicate
# The cleanest of a set of splits with bit i for SPLITS[i]: test (4), val (2), train (1), pool (8).
CLEANEST = np.array([2 if bits & 4 else 1 if bits & 2 else 0 if bits & 1 else 3 for bits in range(16)], dtype=np.int8)
DISAGREE = np.array([bits & 7 not in (0, 1, 2, 4) or bits & 12 == 12 for bits in range(16)])
REASON_LIMIT = 200  # characters

_DEALT_WITH = "# dealt with "
_TOMBSTONE = re.compile(r"([A-Za-z0-9_-]{16}) (\S(?:.*\S)?)")

Contents = NDArray[np.bytes_]  # (n,) S12, the first 12 bytes of the SHA-256


@dataclass(frozen=True)
class Ledger:
    """The ledger in memory: 26 bytes per content and 10 per unit, and 20 per line that repeats a content.

    Attributes:
        high, low, place, unit: (n,) as in `Columns`, of the line that counts for a content; sorted by (high, low).
        rank: (n,) uint8, index in LETTERS of that line.
        answers: (n,) uint8, the splits in all lines of that content: bit i for SPLITS[i].
        units: (u,) uint64, sorted.
        unit_split: (u,) int8, index in SPLITS.
        unit_answers: (u,) uint8, the splits in its kept lines.
        also_row, also_unit, also_place: (k,) int64, uint64, uint32, other lines of kept documents with the same split
            as the one that counts for that row.
        forgotten: sorted contents whose lines do not count.
        size: number of lines.
        mark: of the lines and of what is forgotten, the same for both forms of the folder.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint32]
    place: NDArray[np.uint32]
    unit: NDArray[np.uint64]
    rank: NDArray[np.uint8]
    answers: NDArray[np.uint8]
    units: NDArray[np.uint64]
    unit_split: NDArray[np.int8]
    unit_answers: NDArray[np.uint8]
    also_row: NDArray[np.int64]
    also_unit: NDArray[np.uint64]
    also_place: NDArray[np.uint32]
    forgotten: Contents
    size: int
    mark: str

    def __len__(self) -> int:
        """Number of contents."""
        return len(self.high)

    @property
    def split(self) -> NDArray[np.int8]:
        """(n,) index in SPLITS."""
        return SPLIT_OF_RANK[self.rank]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether the line is that of a document that is kept, not of a duplicate."""
        return self.rank % 2 == 0

    def rows_of(self, high: NDArray[np.uint64], low: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Row of each content, or -1: (m,) for m contents."""
        first = np.searchsorted(self.high, high)
        count = np.searchsorted(self.high, high, side="right") - first
        for number in np.flatnonzero(count > 1).tolist():  # contents that begin with the same 8 bytes
            same = self.low[first[number] : first[number] + count[number]]
            first[number] += min(int(np.searchsorted(same, low[number])), len(same) - 1)
        found = count > 0
        found[found] = self.low[first[found]] == low[found]
        return np.where(found, first, -1)

    def units_of(self, unit: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each unit in `units`, or -1: (m,) for m units."""
        place = np.searchsorted(self.units, unit)
        found = place < len(self.units)
        found[found] = self.units[place[found]] == unit[found]
        return np.where(found, place, -1)

    def records(
        self, rows: NDArray[np.int32], unit: NDArray[np.uint64], place: NDArray[np.uint32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether lines of a content are of this place, and whether they are of this unit: two arrays (m,).

        Args:
            rows: (m,) of contents, or -1.
            unit, place: (m,) of a document with that content.
        """
        known = np.flatnonzero(rows >= 0)
        at_place, in_unit = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        at_place[known] = self.place[rows[known]] == place[known]
        in_unit[known] = self.unit[rows[known]] == unit[known]
        several = np.flatnonzero(np.isin(rows, self.also_row))
        for result, ours, theirs in ((at_place, place, self.also_place), (in_unit, unit, self.also_unit)):
            lines = _pairs(self.also_row, theirs)
            result[several] |= np.isin(_pairs(rows[several], ours[several]), lines)
        return at_place, in_unit

    @classmethod
    def empty(cls) -> Ledger:
        """One that lists nothing."""
        forgotten = content_keys(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32))
        return cls.of([], forgotten, mark_of([], forgotten))

    @classmethod
    def of(cls, batches: Iterable[Columns], forgotten: Contents, mark: str = "") -> Ledger:
        """The meaning of lines.

        Args:
            batches: distinct lines, sorted by their bytes in each; no content is in two batches.
            forgotten: sorted.
        """
        answers, unit_parts, rank_parts, repeated, size = [], [], [], [], 0
        for batch in batches:
            size += len(batch)
            live = batch.take(~is_among(batch, forgotten)) if len(forgotten) else batch
            if len(live):
                answers.append(_answers(live))
                unit_parts.append(live.unit)
                rank_parts.append(live.rank)
                repeated.append(live.take(_repeated(live)))
        chosen = _joined([columns for columns, _ in answers])
        masks = np.concatenate([np.zeros(0, dtype=np.uint8), *(mask for _, mask in answers)])
        answers.clear()
        if not _ascending(chosen.high, chosen.low):
            order = np.lexsort((chosen.low, chosen.high))
            chosen, masks = chosen.take(order), masks[order]
        unit = np.concatenate([np.zeros(0, dtype=np.uint64), *unit_parts])
        rank = np.concatenate([np.zeros(0, dtype=np.uint8), *rank_parts])
        unit_parts.clear()
        units, unit_split, unit_answers = _units(unit, rank)
        del unit, rank
        nothing = np.zeros(0, dtype=np.int64)
        ledger = cls(
            high=chosen.high, low=chosen.low, place=chosen.place, unit=chosen.unit, rank=chosen.rank, answers=masks,
            units=units, unit_split=unit_split, unit_answers=unit_answers,
            also_row=nothing, also_unit=nothing.astype(np.uint64), also_place=nothing.astype(np.uint32),
            forgotten=forgotten, size=size, mark=mark,
        )  # fmt: skip
        lines = _joined(repeated)
        rows = ledger.rows_of(lines.high, lines.low)
        also = (lines.rank % 2 == 0) & (lines.rank // 2 == ledger.rank[rows] // 2)
        also &= (lines.unit != ledger.unit[rows]) | (lines.place != ledger.place[rows])
        return replace(ledger, also_row=rows[also], also_unit=lines.unit[also], also_place=lines.place[also])


def content_keys(high: NDArray[np.uint64], low: NDArray[np.uint32]) -> Contents:
    """Contents as bytes, to sort and to look up: (n,) S12."""
    keys = np.empty(len(high), dtype=[("high", ">u8"), ("low", ">u4")])
    keys["high"], keys["low"] = high, low
    return keys.view("S12").reshape(-1)


def disagree(answers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a set of splits names two sides; pool goes with train and with val."""
    return DISAGREE[answers]


def _pairs(
    rows: NDArray[np.int64] | NDArray[np.int32], values: NDArray[np.uint64] | NDArray[np.uint32]
) -> NDArray[np.bytes_]:
    """Each row with its value as 16 bytes, to look pairs up."""
    pairs = np.empty(len(rows), dtype=[("row", ">u8"), ("value", ">u8")])
    pairs["row"], pairs["value"] = rows, values
    return pairs.view("S16").reshape(-1)


def is_among(columns: Columns, contents: Contents) -> NDArray[np.bool_]:
    """(n,) whether the content of each line is one of `contents`."""
    return np.isin(content_keys(columns.high, columns.low), contents)


def _joined(parts: Sequence[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    columns = {}
    for name, kind in FIELDS.items():
        columns[name] = np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])
    return Columns(**columns)


def _ascending(high: NDArray[np.uint64], low: NDArray[np.uint32]) -> bool:
    return bool(((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))).all())


def _answers(lines: Columns) -> tuple[Columns, NDArray[np.uint8]]:
    """(the line that counts of each content, the splits in all its lines), sorted by (high, low).

    `lines` are sorted by their bytes, so those of one content are neighbours.
    """
    content = _begins(lines.high, lines.low)
    starts = np.flatnonzero(content)
    masks = np.bitwise_or.reduceat(_bits(lines.rank), starts)
    number = np.cumsum(content) - 1
    best = np.flatnonzero(lines.rank == np.minimum.reduceat(lines.rank, starts)[number])
    chosen = best[_begins(number[best])]
    order = np.lexsort((lines.low[chosen], lines.high[chosen]))
    return lines.take(chosen[order]), masks[order]


def _repeated(lines: Columns) -> NDArray[np.bool_]:
    """(n,) whether the content of a line is that of a neighbour, too."""
    begins = _begins(lines.high, lines.low)
    return ~begins | np.append(~begins[1:], False)


def _begins(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(n,) where one of the columns differs from the row before it."""
    result = np.ones(len(columns[0]), dtype=bool)
    result[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return result


def _bits(rank: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The split of each line as a set: bit i for SPLITS[i]."""
    return (np.uint8(1) << SPLIT_OF_RANK[rank].astype(np.uint8)).astype(np.uint8)


def _units(
    unit: NDArray[np.uint64], rank: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int8], NDArray[np.uint8]]:
    """(units, split of each, splits in its kept lines), from all lines."""
    if not len(unit):
        return unit, np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.uint8)
    order = np.argsort(unit)
    unit, bits, kept = unit[order], _bits(rank)[order], (rank % 2 == 0)[order]
    starts = np.flatnonzero(_begins(unit))
    of_kept = np.bitwise_or.reduceat(np.where(kept, bits, 0).astype(np.uint8), starts)
    split = CLEANEST[np.where(of_kept > 0, of_kept, np.bitwise_or.reduceat(bits, starts))]
    return unit[starts], split, of_kept


def read_ledger(folder: Path, *, salt: str) -> Ledger:
    """Read a ledger; a folder with an empty file is an empty one.

    Raises:
        UserError: for a missing folder, one of the former form, a foreign file, a malformed line (file and line are
            named) or a ledger that was dealt with another salt.
    """
    refuse_former(folder)
    forgotten, mark = read_forgotten(folder / FORGOTTEN), salt_mark(salt)
    shards: dict[int, bytes] = {}
    try:
        ledger = Ledger.of(_noted(_one_by_one(folder, mark), shards), forgotten)
    except _MisplacedLinesError:
        shards.clear()
        ledger = Ledger.of(_noted(disjoint(read_folder(folder, mark=mark)), shards), forgotten)
    return replace(ledger, mark=_mark(shards, forgotten))


class _MisplacedLinesError(Exception):
    """Lines of one content may be in several files, so that these must be read together."""


def _one_by_one(folder: Path, mark: str) -> Iterator[tuple[Lines, Columns]]:
    """The lines file by file: of the 256 files one is in memory at a time."""
    paths = files_of(folder)
    for path in paths:
        text, columns = _read_file(path, mark)
        if len(paths) > 1 and len(columns) and not _in_own_shard(path.name, columns):
            raise _MisplacedLinesError
        yield text.lines, columns


def _noted(batches: Iterable[tuple[Lines, Columns]], shards: dict[int, bytes]) -> Iterator[Columns]:
    """The fields of each batch, while `shards` takes the hashes of its lines."""
    for lines, columns in batches:
        _note(lines, columns, shards)
        yield columns


def refuse_former(folder: Path) -> None:
    """Refuse to work beside a ledger of the former form.

    Raises:
        UserError: naming the command that converts it.
    """
    former = folder.with_name(f"{folder.name}.ndjson")
    if former.exists():
        raise UserError(
            f"{former} is a ledger of the former form; run `codex-ml ledger convert`, which moves no document"
        )


def refuse_file(folder: Path) -> None:
    """Refuse a ledger that is a file.

    Raises:
        UserError: naming it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; a ledger is a folder with text files, so move this file away")


def files_of(folder: Path) -> list[Path]:
    """The files with the lines of a ledger, sorted by name.

    Raises:
        UserError: when the folder is missing or holds something else.
    """
    refuse_file(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is missing; `mkdir {folder}` and `touch {folder / ALL}` start a new ledger, split.ledger: false "
            "does without one"
        )
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # what a killed command left, .gitignore
            continue
        if path.suffix != ".txt" or not path.is_file():
            reason = "{} is not part of a ledger, which has text files with names in .txt only; move it out of {}"
            raise UserError(Reason(reason, str(path), str(folder)))  # a name may hold line ends
        if path.name != FORGOTTEN:
            found.append(path)
    return found


def read_folder(folder: Path, *, mark: str = "") -> dict[str, tuple[Text, Columns]]:
    """Texts and fields of all files, by file name.

    Args:
        mark: `salt_mark` of split.salt; "" for whatever salt it is.
    """
    texts = {}
    for path in files_of(folder):
        text, columns = _read_file(path, mark)
        mark = mark or text.salt
        texts[path.name] = text, columns
    return texts


def _read_file(path: Path, mark: str) -> tuple[Text, Columns]:
    text, columns = decoded(path.read_bytes(), str(path))
    if mark and text.salt not in ("", mark):
        raise UserError(
            f"{path}:1: this ledger was dealt with another split.salt; give that one back, or start an empty ledger to "
            "deal all documents anew (then no earlier test result can be compared)"
        )
    return text, columns


def disjoint(texts: dict[str, tuple[Text, Columns]]) -> list[tuple[Lines, Columns]]:
    """The lines in batches that have no content in common, whatever file a line is in."""
    files = [(name, text.lines, columns) for name, (text, columns) in texts.items() if len(columns)]
    if len(files) <= 1 or all(_in_own_shard(name, columns) for name, _, columns in files):
        return [(lines, columns) for _, lines, columns in files]
    lines = lines_of(_joined([columns for _, _, columns in files]))
    columns = columns_of(lines)
    assert columns is not None
    return [(lines, columns)]


def _in_own_shard(name: str, columns: Columns) -> bool:
    return name in SHARDS and bool((shards_of(columns) == SHARDS.index(name)).all())


def shards_of(columns: Columns) -> NDArray[np.uint8]:
    """(n,) index in SHARDS: the first byte of the content."""
    return (columns.high >> np.uint64(56)).astype(np.uint8)


def mark_of(batches: Sequence[tuple[Lines, Columns]], forgotten: Contents) -> str:
    """What names a ledger: a hash of its lines, the same for both forms of the folder.

    Args:
        batches: as `disjoint` returns them.
    """
    shards: dict[int, bytes] = {}
    for lines, columns in batches:
        _note(lines, columns, shards)
    return _mark(shards, forgotten)


def _note(lines: Lines, columns: Columns, shards: dict[int, bytes]) -> None:
    shard = shards_of(columns)
    for number in np.unique(shard).tolist():
        shards[number] = hashlib.blake2b(lines[shard == number].tobytes()).digest()


def _mark(shards: dict[int, bytes], forgotten: Contents) -> str:
    whole = hashlib.blake2b(forgotten.tobytes(), digest_size=8)
    for number in sorted(shards):
        whole.update(bytes([number]) + shards[number])
    return whole.hexdigest()


def read_forgotten(path: Path) -> Contents:
    """Contents whose lines do not count any more, sorted and distinct; none where there is no such file."""
    contents = [content for content, _ in read_tombstones(path.read_bytes(), str(path))] if path.is_file() else []
    return contents_of(contents)


def contents_of(texts: Sequence[str]) -> Contents:
    """Contents, as a line writes them, as bytes: sorted and distinct."""
    filler = b" AAAAAAAAAAA AAAAAA R"
    columns = columns_of(np.array([text.encode() + filler for text in sorted(set(texts))], dtype=no_lines().dtype))
    assert columns is not None
    return np.unique(content_keys(columns.high, columns.low))


def read_tombstones(data: bytes, name: str) -> list[tuple[str, str]]:
    """(content, reason) of each line of forgotten.txt, distinct and sorted.

    Raises:
        UserError: naming file and line, for one that is malformed.
    """
    found = set()
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        line = line.removesuffix("\r")
        entry = _TOMBSTONE.fullmatch(line)
        if entry and line.isprintable():
            found.add((entry[1], entry[2]))
        elif line and not line.startswith(HEADER):
            refuse_conflict(line, name, first_line=number)
            raise UserError(
                f"{name}:{number}: a line of forgotten contents is `<content> <reason>`, 16 characters and a text; "
                "take the file from another commit, then `codex-ml ledger forget` again"
            )
    return sorted(found)


def write_new_lines(path: Path, lines: Lines, *, salt: str, mark: str) -> None:
    """Write what a split adds to the ledger, into a folder that is not published yet.

    Args:
        mark: of the ledger that it was dealt with.
    """
    with naming(path), path.open("wb") as file:
        file.write(f"{HEADER}{salt_mark(salt)}\n{_DEALT_WITH}{mark}\n".encode())
        file.writelines(blocks_of(lines))


def read_new_lines(path: Path) -> tuple[Text, str]:
    """What `write_new_lines` wrote: the lines and the mark.

    Raises:
        UserError: when there is none, or when it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; `dvc repro split` makes it")
    head, _, rest = path.read_bytes().partition(b"\n")
    second, _, body = rest.partition(b"\n")
    mark = re.fullmatch(f"{_DEALT_WITH}([0-9a-f]{{16}})", second.decode("ascii", "replace"))
    if not mark:
        raise UserError(
            f"{path}:2: this line must be `{_DEALT_WITH}<16 digits>`; `dvc repro split` makes the file anew"
        )
    return decoded(head + b"\n" + body, str(path))[0], mark[1]
