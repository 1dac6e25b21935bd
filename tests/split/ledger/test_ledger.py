"""The ledger is read back as it was written, whatever the order of its lines, and a mistake in it is reported."""

import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.split.ledger import edits as ledger_files
from codex_ml.split.ledger import line_format as ledger_lines
from codex_ml.split.ledger.answers import SPLITS, Ledger
from codex_ml.split.ledger.edits import accept_new_lines, rewrite, write_folder
from codex_ml.split.ledger.folder import read_ledger, read_new_lines, write_new_lines
from codex_ml.split.ledger.forgotten import add_tombstones, contents_of
from codex_ml.split.ledger.line_format import (
    LETTERS,
    Columns,
    Text,
    bytes_of,
    columns_of,
    content_keys,
    lines_of,
    missing,
    no_lines,
    read_ledger_text,
    salt_mark,
    unite_texts,
)
from codex_ml.split.ledger.shards import SHARDS

MARK = salt_mark("s")
HEADER = f"# codex-ml/ledger/2 salt {MARK}\n".encode()
LINE = b"47DEQpj8HBSa-_TI AAAAAAAAAAE AAAAAg R\n"


def columns(rows):
    """Columns of (high, low, unit, place, rank)."""
    fields = list(zip(*rows, strict=True)) or [()] * 5
    kinds = (np.uint64, np.uint32, np.uint64, np.uint32, np.uint8)
    return Columns(*(np.array(field, dtype=kind) for field, kind in zip(fields, kinds, strict=True)))


def rows_of(found):
    return list(zip(*(getattr(found, n).tolist() for n in ("high", "low", "unit", "place", "rank")), strict=True))


def number(bits):
    return st.integers(0, 2**bits - 1)


# Few contents, units and places, so that lines meet.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.sampled_from([0, 7, 2**32 - 1]), st.sampled_from([0, 5, 2**64 - 1]),
        st.sampled_from([0, 2**32 - 1]), st.integers(0, 7),
    ),
    max_size=25,
)  # fmt: skip


@given(st.lists(st.tuples(number(64), number(32), number(64), number(32), st.integers(0, 7)), max_size=20))
def test_written_lines_are_read_back(rows):
    lines = lines_of(columns(rows))
    assert lines.tolist() == sorted(set(lines.tolist()))
    assert sorted(rows_of(columns_of(lines))) == sorted(set(rows))
    text = Text(MARK, lines)
    assert read_ledger_text(bytes_of(text), "f").lines.tolist() == lines.tolist()


@pytest.mark.parametrize("at_once", [1, 3, 7, 8, 1000])
def test_lines_are_encoded_and_written_in_blocks(monkeypatch, at_once):
    rows = [(number * 2**60 + number, number, 5, 6, number % 3) for number in (7, 3, 3, 1, 0, 7, 5)]
    expected = sorted({lines_of(columns([row])).tolist()[0] for row in rows})
    monkeypatch.setattr(ledger_lines, "LINES_AT_ONCE", at_once)
    lines = lines_of(columns(rows))
    assert lines.tolist() == expected
    assert bytes_of(Text(MARK, lines)) == HEADER + b"".join(line + b"\n" for line in expected)


def test_a_line_is_frozen():
    high, low = 0xE3B0C44298FC1C14, 0x9AFBF4C8  # of the SHA-256 of nothing
    [line] = lines_of(columns([(high, low, 1, 2, LETTERS.index(b"R"))])).tolist()
    assert line + b"\n" == LINE
    assert bytes_of(read_ledger_text(HEADER + LINE, "f")) == HEADER + LINE
    assert len(LINE) == 38


@given(ROWS, st.randoms(use_true_random=False))
def test_a_union_in_any_order_with_repeated_headers_is_the_same_text(rows, dice):
    lines = [line + b"\n" for line in lines_of(columns(rows)).tolist()]
    canonical = HEADER + b"".join(lines)
    mixed = [*lines, *(dice.choices(lines, k=3) if lines else []), HEADER, HEADER]
    dice.shuffle(mixed)
    end = dice.choice([b"\n", b"\r\n"])
    data = end.join(piece[:-1] for piece in [HEADER, *mixed]) + dice.choice([b"", end, end + end])
    assert bytes_of(read_ledger_text(data, "f")) == canonical
    half = dice.randint(0, len(mixed))
    parts = [read_ledger_text(HEADER + b"".join(part), "f") for part in (mixed[:half], mixed[half:])]
    assert (
        bytes_of(unite_texts(parts))
        == bytes_of(unite_texts(reversed(parts)))
        == bytes_of(unite_texts([*parts, *parts]))
        == canonical
    )


def plain_meaning(rows, forgotten=()):
    """({content: (unit, place, rank)}, {unit: split}) by the rules of docs/data.md, one line after the other."""
    rows = [row for row in rows if row[:2] not in forgotten]
    text = {row: lines_of(columns([row])).tolist()[0] for row in rows}
    contents: dict[tuple, tuple] = {}
    for row in sorted(set(rows), key=lambda row: (row[4], text[row])):
        contents.setdefault(row[:2], row[2:])
    units: dict[int, list] = {}
    for row in rows:
        units.setdefault(row[2], []).append(row[4])
    sides = {}
    for unit, ranks in units.items():
        kept = [rank for rank in ranks if rank % 2 == 0]
        sides[unit] = ["test", "val", "train", "pool"][min(kept or ranks) // 2]
    return contents, sides


@given(ROWS, st.booleans())
def test_the_cleanest_answer_counts(tmp_path_factory, rows, forget):
    folder = tmp_path_factory.mktemp("ledger")
    write_folder(folder, [lines_of(columns(rows))], MARK)
    gone = [rows[0][:2]] if forget and rows else []
    if gone:
        [line] = lines_of(columns([rows[0]])).tolist()
        add_tombstones(folder, [line[:16].decode()], "asked for")
    ledger = read_ledger(folder, salt="s")
    contents, units = plain_meaning(rows, gone)
    found = zip(*(getattr(ledger, n).tolist() for n in ("high", "low", "unit", "place", "rank")), strict=True)
    assert {row[:2]: row[2:] for row in found} == contents
    assert sorted(contents) == list(zip(ledger.high.tolist(), ledger.low.tolist(), strict=True))
    assert {u: SPLITS[s] for u, s in zip(ledger.units.tolist(), ledger.unit_split.tolist(), strict=True)} == units
    for pair in itertools.product([0, 1, 2**63, 2**64 - 1, 3], [0, 7, 2**32 - 1, 1]):
        [row] = ledger.rows_of(np.array(pair[:1], np.uint64), np.array(pair[1:], np.uint32)).tolist()
        assert (row >= 0) == (pair in contents)
        if row >= 0:
            assert (int(ledger.high[row]), int(ledger.low[row])) == pair


@given(ROWS, ROWS, st.sampled_from([1, 5, 1000]))
def test_every_form_of_the_folder_means_the_same(tmp_path_factory, one, other, limit):
    lines = [lines_of(columns(rows)) for rows in (one, other)]
    forms = []
    for step in range(4):
        folder = tmp_path_factory.mktemp("ledger")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger_files, "LINES_IN_ONE_FILE", limit if step else 1000)
            write_folder(folder, lines if step < 2 else lines[::-1], MARK)
            if step == 3:  # a stray file, lines twice, lines in the shard of others
                (folder / "notes.txt").write_bytes(bytes_of(Text(MARK, lines[0])))
                (folder / "00.txt").write_bytes(bytes_of(Text(MARK, lines[1])))
                (folder / "ff.txt").write_bytes(bytes_of(Text(MARK, lines[0])))
        forms.append((folder, read_ledger(folder, salt="s")))
    first = forms[0][1]
    for folder, ledger in forms:
        assert ledger.mark == first.mark and len(ledger) == len(first) and ledger.size == first.size
        for name in ("high", "low", "unit", "place", "rank", "answers", "units", "unit_split", "unit_answers"):
            assert getattr(ledger, name).tolist() == getattr(first, name).tolist()
        rewrite(folder)
        assert [path.name for path in folder.iterdir()] == ["all.txt"]
        assert (folder / "all.txt").read_bytes() == (forms[0][0] / "all.txt").read_bytes()


def test_an_empty_file_is_an_empty_ledger(tmp_path):
    (tmp_path / "all.txt").touch()
    assert len(read_ledger(tmp_path, salt="s")) == 0
    assert read_ledger(tmp_path, salt="s").mark == Ledger.empty().mark
    write_folder(tmp_path, [no_lines()], "")
    assert (tmp_path / "all.txt").read_bytes() == b""
    write_folder(tmp_path, [no_lines()], MARK)
    assert (tmp_path / "all.txt").read_bytes() == HEADER
    assert read_ledger(tmp_path, salt="s").mark == Ledger.empty().mark


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"l is missing; start a new ledger with `mkdir .*l` and `touch .*all\.txt`"):
        read_ledger(tmp_path / "l", salt="s")


@pytest.mark.parametrize("name", ["all.txt.orig", "README.md", "deeper.txt/all.txt", "ALL.TXT"])
def test_a_foreign_file_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"{name.split('/')[0]} is not part of a ledger"):
        read_ledger(tmp_path, salt="s")


def test_another_salt_is_refused_and_not_shown(tmp_path):
    write_folder(tmp_path, [no_lines()], salt_mark("the secret salt"))
    assert b"secret" not in (tmp_path / "all.txt").read_bytes()
    with pytest.raises(
        UserError, match=r"all.txt:1: this ledger was dealt with another split\.salt; set that salt again"
    ):
        read_ledger(tmp_path, salt="s")


BAD = [
    *(LINE[:16] + piece + LINE[17:-1] for piece in (b"", b"  ", b"\t", b"-")),
    *(LINE[:-2] + letter for letter in (b"", b"X", b"RR", b"R ", b"\0", b"1", b" ")),
    *(bad + LINE[1:-1] for bad in (b"+", b"/", b"=", b"\0", b"\xc3", b" ", b"")),
    LINE[:17] + b"AAAAAAAAAAB" + LINE[28:-1],  # bits that no number has
    LINE[:29] + b"AAAAAh" + LINE[35:-1],
    b"\xef\xbb\xbf" + LINE[:-1], LINE[:-1] + LINE[:-1], b"{}", b"#", b"# a comment", b"x" * 10_000, b"\0" * 37, b" " * 37,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_malformed_line_is_named(bad, place):
    lines = [LINE, LINE, LINE]
    lines.insert(place, bad + b"\n")
    with pytest.raises(UserError, match=rf"^dir/f:{place + 2}: this is not a line of the ledger: "):
        read_ledger_text(HEADER + b"".join(lines), "dir/f")


@pytest.mark.parametrize("marker", [b"<<<<<<< HEAD", b"=======", b">>>>>>> other", b"||||||| 1234567", b"<<<<<<<"])
def test_conflict_markers_are_reported(marker):
    with pytest.raises(
        UserError, match=r"^data/split_ledger/all\.txt:3: conflict markers of a merge; `codex-ml merge`"
    ):
        read_ledger_text(HEADER + LINE + marker + b"\n" + LINE, "data/split_ledger/all.txt")


@pytest.mark.parametrize(
    "head", [LINE, b"\xef\xbb\xbf" + HEADER, HEADER.replace(b"2", b"3", 1), HEADER[1:], b"\0\n", b"{}\n"]
)
def test_a_missing_header_is_reported(head):
    with pytest.raises(
        UserError, match=r"^f:1: the first line of a ledger must be `# codex-ml/ledger/2 salt <16 digits>`"
    ):
        read_ledger_text(head + LINE, "f")


def test_a_header_of_another_salt_is_refused_wherever_it_is():
    other = HEADER.replace(MARK.encode(), salt_mark("t").encode())
    with pytest.raises(UserError, match=r"^f:3: this header has another split\.salt"):
        read_ledger_text(HEADER + LINE + other, "f")
    with pytest.raises(UserError, match=r"different values of split\.salt"):
        unite_texts([read_ledger_text(HEADER, "f"), read_ledger_text(other, "f")])


def test_a_hundred_thousand_lines_are_a_folder_of_256_files(tmp_path):
    dice = np.random.Generator(np.random.PCG64(1))
    size = 100_000
    found = Columns(
        dice.integers(0, 2**64, size, np.uint64), dice.integers(0, 2**32, size, np.uint32),
        dice.integers(0, 2**64, size, np.uint64), dice.integers(0, 2**32, size, np.uint32),
        dice.integers(0, 8, size, np.uint8),
    )  # fmt: skip
    lines = lines_of(found)
    write_folder(tmp_path, [lines[1:]], MARK)
    assert [path.name for path in tmp_path.iterdir()] == ["all.txt"]
    write_folder(tmp_path, [lines], MARK)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(SHARDS)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 38 * size + 256 * len(HEADER)
    ledger = read_ledger(tmp_path, salt="s")
    order = np.lexsort((found.low, found.high))
    for name in ("high", "low", "unit", "place", "rank"):
        assert (getattr(ledger, name) == getattr(found, name)[order]).all()
    arrays = ("high", "low", "unit", "place", "rank", "answers", "units", "unit_split", "unit_answers")
    assert sum(getattr(ledger, name).nbytes for name in arrays) == 36 * size


@pytest.fixture(params=[1, 1000])
def limit(request, monkeypatch):
    monkeypatch.setattr(ledger_files, "LINES_IN_ONE_FILE", request.param)
    return request.param


def some(count, start=0):
    dice = random.Random(start)
    return lines_of(columns([(dice.getrandbits(64), 1, 2, 3, 4) for _ in range(count)]))


def test_accept_unites_and_repeating_it_changes_nothing(tmp_path, limit):
    folder, new = tmp_path / "l", tmp_path / "new"
    with pytest.raises(UserError, match=r"new is missing; `dvc repro split` makes it$"):
        accept_new_lines(new, write_and_return(folder, some(3)))
    ledger = read_ledger(folder, salt="s")
    write_new_lines(new, some(5, 1), salt="s", mark=ledger.mark)
    assert read_new_lines(new)[1] == ledger.mark
    assert (accept_new_lines(new, folder).added, accept_new_lines(new, folder).added) == (5, 0)
    everything = sorted([*some(3).tolist(), *some(5, 1).tolist()])
    assert (
        sorted(line for path in folder.iterdir() for line in read_ledger_text(path.read_bytes(), "").lines.tolist())
        == everything
    )
    write_new_lines(new, some(5, 2), salt="s", mark=ledger.mark)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"was dealt with another ledger than the one in .*; run `dvc repro split`"):
        accept_new_lines(new, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def write_and_return(folder, lines):
    write_folder(folder, [lines], MARK)
    return folder


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-2], lambda d: d[:30], lambda d: b"", lambda d: d.replace(b"dealt", b"", 1)]
)
def test_a_damaged_file_of_new_lines_is_refused(tmp_path, damage):
    write_and_return(tmp_path / "l", some(3))
    write_new_lines(tmp_path / "new", some(5, 1), salt="s", mark=read_ledger(tmp_path / "l", salt="s").mark)
    (tmp_path / "new").write_bytes(damage((tmp_path / "new").read_bytes()))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "new"))):
        accept_new_lines(tmp_path / "new", tmp_path / "l")


def test_a_kill_between_two_files_loses_no_line_and_accept_completes(tmp_path, monkeypatch):
    """From one file to 256 and back, stopped before each write and each removal."""
    new = tmp_path / "new"
    for before, after in ((1000, 1), (1, 1000), (1, 1)):
        for stop in itertools.count():
            folder = tmp_path / f"{before}-{after}-{stop}"
            monkeypatch.setattr(ledger_files, "LINES_IN_ONE_FILE", before)
            old = write_and_return(folder, some(4))
            ledger = read_ledger(folder, salt="s")
            write_new_lines(new, some(6, 1), salt="s", mark=ledger.mark)
            monkeypatch.setattr(ledger_files, "LINES_IN_ONE_FILE", after)
            finished = killed_after(stop, lambda folder=folder: accept_new_lines(new, folder))
            held = np.concatenate([read_ledger_text(path.read_bytes(), "").lines for path in old.iterdir()])
            assert missing(some(4), np.unique(held)).tolist() == []
            accept_new_lines(new, folder)
            whole = read_ledger(folder, salt="s")
            assert whole.size == 10
            assert len(list(folder.iterdir())) == (
                1 if after == 1000 else len({line[:2] for line in shard_names(whole)})
            )
            if finished:
                break
        assert stop > 2


def shard_names(ledger):
    return [f"{high >> 56:02x}" for high in ledger.high.tolist()]


class Killed(BaseException):
    """No handler of this project catches it."""


def killed_after(steps, work):
    """Run `work`, stopped before step number `steps`; return True if it finished."""
    left = iter(range(steps))

    def counted(function):
        def call(*args, **options):
            if next(left, None) is None:
                raise Killed
            return function(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_files, "write_bytes", counted(ledger_files.write_bytes))
        patch.setattr(ledger_files.Path, "unlink", counted(ledger_files.Path.unlink))
        try:
            work()
        except Killed:
            return False
    return True


def test_forgotten_contents_are_a_set_of_lines(tmp_path):
    folder = write_and_return(tmp_path / "l", some(3))
    names = [line[:16].decode() for line in some(3).tolist()]
    assert add_tombstones(folder, names[:2], "asked for") == sorted(names[:2])
    assert add_tombstones(folder, names[:2], "another reason") == []
    text = (folder / "forgotten.txt").read_text()
    assert text == "".join(f"{name} asked for\n" for name in sorted(names[:2]))
    (folder / "forgotten.txt").write_text(text + HEADER.decode() + text[::1] + "\r\n")
    ledger = read_ledger(folder, salt="s")
    assert content_keys(ledger.high, ledger.low).tolist() == contents_of(names[2:]).tolist()
    assert ledger.size == 3 and ledger.mark != Ledger.empty().mark


@pytest.mark.parametrize(
    "line", ["short x", "A" * 16, "A" * 16 + " ", "A" * 16 + "  x", "+" * 16 + " x", "<<<<<<< HEAD", "A" * 16 + " a\tb"]
)
def test_a_malformed_tombstone_is_named(tmp_path, line):
    folder = write_and_return(tmp_path / "l", some(3))
    (folder / "forgotten.txt").write_text("A" * 16 + " fine\n" + line + "\n")
    with pytest.raises(UserError, match=r"forgotten.txt:2: "):
        read_ledger(folder, salt="s")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "two\nlines", "\x1b[2J"])
def test_a_reason_is_one_line(tmp_path, reason):
    with pytest.raises(UserError, match="--reason must be one line"):
        add_tombstones(write_and_return(tmp_path / "l", some(1)), ["A" * 16], reason)
