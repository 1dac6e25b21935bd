"""Any contents of the ledger folder: their documented meaning, or one clear line; never a traceback or a guess."""

from __future__ import annotations

import base64
import os
import random
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codex_ml.core.errors import UserError, safe_text
from codex_ml.split.ledger.answers import SPLITS, Ledger
from codex_ml.split.ledger.edits import accept_new_lines, rewrite, write_folder
from codex_ml.split.ledger.folder import read_ledger, read_new_lines
from codex_ml.split.ledger.forgotten import add_tombstones, read_forgotten
from codex_ml.split.ledger.line_format import salt_mark

SALT = "pepper"
HEADER = f"# codex-ml/ledger/2 salt {salt_mark(SALT)}\n".encode()
CLEANEST = "TtVvRrPp"  # from the cleanest answer on: test, val, train, pool; kept before duplicate
NAMES = {"T": "test", "V": "val", "R": "train", "P": "pool"}
LINE = re.compile(rb"[A-Za-z0-9_-]{16} [A-Za-z0-9_-]{10}[AEIMQUYcgkosw048] [A-Za-z0-9_-]{5}[AQgw] [TtVvRrPp]")


def number(dice: random.Random, size: int) -> bytes:
    return base64.urlsafe_b64encode(dice.randbytes(size)).rstrip(b"=")


def some_lines(dice: random.Random, count: int) -> list[bytes]:
    """Lines with few contents, units and places, so that they contradict each other in every way."""
    fields = [[number(dice, size) for _ in range(8)] for size in (12, 8, 4)]
    return [
        b" ".join([*(dice.choice(f) for f in fields), dice.choice(CLEANEST).encode()]) + b"\n" for _ in range(count)
    ]


def meaning(data: bytes) -> tuple[dict[bytes, tuple[str, bool]], dict[bytes, str]]:
    """(split and whether it is kept of each content, split of each unit), from the documented words alone."""
    lines = {line for line in data.split(b"\n") if LINE.fullmatch(line)}
    contents: dict[bytes, str] = {}
    units: dict[bytes, list[str]] = {}
    for line in lines:
        content, unit, _, last = line.split()
        letter = last.decode()
        contents[content] = min(contents.get(content, "p"), letter, key=CLEANEST.index)
        units.setdefault(unit, []).append(letter)
    for unit, letters in units.items():
        units[unit] = [letter for letter in letters if letter.isupper()] or letters
    return (
        {content: (NAMES[letter.upper()], letter.isupper()) for content, letter in contents.items()},
        {unit: NAMES[min(letters, key=CLEANEST.index).upper()] for unit, letters in units.items()},
    )


def read_meaning(ledger: Ledger) -> tuple[dict[bytes, tuple[str, bool]], dict[bytes, str]]:
    def text(value: int, size: int) -> bytes:
        return base64.urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=")

    contents = [text((int(h) << 32) + int(w), 12) for h, w in zip(ledger.high, ledger.low, strict=True)]
    answers = [(SPLITS[s], bool(k)) for s, k in zip(ledger.split, ledger.kept, strict=True)]
    units = [text(int(unit), 8) for unit in ledger.units]
    return dict(zip(contents, answers, strict=True)), dict(
        zip(units, (SPLITS[s] for s in ledger.unit_split), strict=True)
    )


FOLDER = Path("data/split_ledger")


@pytest.fixture(autouse=True)
def _in_an_empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def folder_with(data: bytes) -> Path:
    """The ledger of the current folder, anew, with this text."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "all.txt").write_bytes(data)
    return FOLDER


def one_line(error: UserError, *needles: str) -> None:
    text = safe_text(str(error))  # as it is printed
    assert text.isprintable(), text
    assert len(text) < 1000, text
    for needle in needles:
        assert needle in text, text


def at(lines: list[bytes], dice: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    place = dice.randrange(1, len(lines))
    return b"".join([*lines[:place], change(lines[place]), *lines[place + 1 :]])


def before(extra: bytes) -> Callable[[list[bytes], random.Random], bytes]:
    return lambda lines, dice: at(lines, dice, lambda line: extra + line)


def inside(old: bytes, new: bytes) -> Callable[[list[bytes], random.Random], bytes]:
    return lambda lines, dice: at(lines, dice, lambda line: line.replace(old, new))


def swapped(line: bytes) -> bytes:
    a, b, c, d = line.split()
    return b" ".join((b, a, c, d)) + b"\n"


MEANT: dict[str, Callable[[list[bytes], random.Random], bytes]] = {
    "in any order": lambda lines, dice: b"".join(lines[:1] + dice.sample(lines, len(lines))),
    "each line twice": lambda lines, dice: b"".join(lines * 2),
    "a line with every letter": lambda lines, dice: at(
        lines, dice, lambda line: b"".join(line[:-2] + letter.encode() + b"\n" for letter in CLEANEST)
    ),
    "the header again": before(HEADER),
    "blank lines": before(b"\n\n"),
    "ends of lines of Windows": lambda lines, dice: b"".join(lines).replace(b"\n", b"\r\n"),
    "one end of line of Windows": inside(b"\n", b"\r\n"),
    "no end of the last line": lambda lines, dice: b"".join(lines)[:-1],
    "cut between two lines": lambda lines, dice: b"".join(lines[: dice.randrange(1, len(lines))]),
}
WRONG: dict[str, Callable[[list[bytes], random.Random], bytes]] = {
    "cut within a line": lambda lines, dice: b"".join(lines)[: -dice.randrange(2, 37)],
    "a line cut short": lambda lines, dice: at(lines, dice, lambda line: line[: dice.randrange(1, 36)] + b"\n"),
    "two lines in one": lambda lines, dice: at(lines, dice, lambda line: line[:-1] + line),
    "fields swapped": lambda lines, dice: at(lines, dice, swapped),
    "no header": lambda lines, dice: b"".join(lines[1:]),
    "another salt": lambda lines, dice: b"".join([HEADER.replace(salt_mark(SALT).encode(), b"0" * 16), *lines[1:]]),
    "another salt later": before(HEADER.replace(salt_mark(SALT).encode(), b"0" * 16)),
    "another schema": lambda lines, dice: b"".join([HEADER.replace(b"ledger/2", b"ledger/3"), *lines[1:]]),
    "a byte order mark": lambda lines, dice: b"\xef\xbb\xbf" + b"".join(lines),
    "UTF-16": lambda lines, dice: b"".join(lines).decode().encode("utf-16"),
    "a NUL": lambda lines, dice: at(lines, dice, lambda line: line[:7] + b"\0" + line[8:]),
    "a NUL at an end": inside(b"\n", b"\0\n"),
    "a tab": inside(b" ", b"\t"),
    "two blanks": inside(b" ", b"  "),
    "a blank at the end": inside(b"\n", b" \n"),
    "another letter": lambda lines, dice: at(lines, dice, lambda line: line[:-2] + b"X\n"),
    "no letter": lambda lines, dice: at(lines, dice, lambda line: line[:-3] + b"\n"),
    "base64 of the other alphabet": lambda lines, dice: at(lines, dice, lambda line: b"+/" + line[2:]),
    "bits that no number has": lambda lines, dice: at(lines, dice, lambda line: line[:27] + b"B" + line[28:]),
    "bits that no place has": lambda lines, dice: at(lines, dice, lambda line: line[:34] + b"B" + line[35:]),
    "padding": lambda lines, dice: at(lines, dice, lambda line: line[:26] + b"==" + line[28:]),
    "letters of another script": lambda lines, dice: at(lines, dice, lambda line: "кириллица".encode() + line[18:]),
    "bytes that are no text": before(b"\xff\xfe\x80\n"),
    "an escape sequence": before(b"\x1b[31mred\x1b[0m\n"),
    "a comment": before(b"# all of these are mine\n"),
    "a line of the former form": before(
        b'{"content": "00", "place": "00", "unit": "00", "split": "train", "kept": true}\n'
    ),
    "a line of ten megabytes": before(b"A" * 10_000_000 + b"\n"),
    "old ends of lines of Mac": lambda lines, dice: b"".join(lines).replace(b"\n", b"\r"),
    "the marker of ours": before(b"<<<<<<< HEAD\n"),
    "the marker between": before(b"=======\n"),
    "the marker of theirs": before(b">>>>>>> a branch\n"),
    "the marker of the base": before(b"||||||| 1a2b3c4\n"),
}


@pytest.mark.parametrize("how", MEANT)
def test_a_folder_left_by_a_merge_or_a_checkout_means_its_lines(how):
    for seed in range(4):
        dice = random.Random(f"{how} {seed}")
        data = MEANT[how]([HEADER, *sorted(set(some_lines(dice, 60)))], dice)
        folder = folder_with(data)
        ledger = read_ledger(folder, salt=SALT)
        expected = meaning(data.replace(b"\r", b""))
        assert read_meaning(ledger) == expected
        rewrite(folder)
        canonical = (folder / "all.txt").read_bytes()
        body = canonical.removeprefix(HEADER).splitlines(keepends=True)
        assert canonical.startswith(HEADER) and body == sorted(set(body))
        assert read_meaning(read_ledger(folder, salt=SALT)) == expected


@pytest.mark.parametrize("how", WRONG)
def test_a_damaged_ledger_is_refused_in_one_line_with_file_and_line(how):
    for seed in range(4):
        dice = random.Random(f"{how} {seed}")
        folder = folder_with(WRONG[how]([HEADER, *sorted(set(some_lines(dice, 60)))], dice))
        kept = (folder / "all.txt").read_bytes()
        with pytest.raises(UserError) as caught:
            read_ledger(folder, salt=SALT)
        one_line(caught.value, "all.txt:", *(["codex-ml merge"] if "marker" in how else []))
        if "salt" not in how:
            with pytest.raises(UserError) as caught:
                rewrite(folder)
            one_line(caught.value, "all.txt:")
        assert (folder / "all.txt").read_bytes() == kept
        assert [path.name for path in folder.iterdir()] == ["all.txt"]


@pytest.mark.parametrize("seed", range(60))
def test_a_ledger_with_bytes_changed_at_random_means_its_lines_or_is_refused(seed):
    dice = random.Random(seed)
    data = bytearray(HEADER + b"".join(sorted(set(some_lines(dice, 30)))))
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(data))
        what = dice.randrange(3)
        if what == 0:
            data[place] = dice.choice([*range(256), *b"\n\n  ABTtRr"])
        elif what == 1:
            del data[place : place + dice.choice([1, 1, 38])]
        else:
            data[place:place] = bytes(dice.choices(b"\n \0A<=", k=dice.randint(1, 8)))
    folder = folder_with(bytes(data))
    try:
        found = read_meaning(read_ledger(folder, salt=SALT))
    except UserError as error:
        one_line(error, "all.txt:")
        lines = bytes(data).split(b"\n")
        assert (
            any(line and not LINE.fullmatch(line) and line + b"\n" != HEADER for line in lines)
            or lines[0] + b"\n" != HEADER
        )
    else:
        assert found == meaning(bytes(data))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a folder": lambda folder: (folder / "more").mkdir(),
    "a folder with the name of a shard": lambda folder: (folder / "00.txt").mkdir(),
    "a table": lambda folder: (folder / "table.csv").write_text("a,b\n"),
    "a copy by an editor": lambda folder: (folder / "all.txt~").write_text(""),
    "a name in capitals": lambda folder: (folder / "ALL.TXT").write_text(""),
    "a file of notes": lambda folder: (folder / "notes.txt").write_text("what we agreed\n"),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe.txt"),
    "a pipe with the name of a shard": lambda folder: os.mkfifo(folder / "a0.txt"),
    "a pipe with the name of what is forgotten": lambda folder: os.mkfifo(folder / "forgotten.txt"),
    "a folder with the name of what is forgotten": lambda folder: (folder / "forgotten.txt").mkdir(),
    "a socket": lambda folder: make_socket(folder / "s.txt"),
    "a link to nothing": lambda folder: (folder / "b.txt").symlink_to("nowhere"),
    "a link to itself": lambda folder: (folder / "b.txt").symlink_to("b.txt"),
    "a link to a device": lambda folder: (folder / "b.txt").symlink_to("/dev/zero"),
    "a link to a folder": lambda folder: (folder / "b.txt").symlink_to("/tmp"),
    "a name with a line end": lambda folder: (folder / "a\nb").write_text(""),
    "a name with an escape sequence": lambda folder: (folder / "\x1b[31m.txt").write_text("x"),
    "a name that is no text": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text(""),
    "what is forgotten without a reason": lambda folder: (folder / "forgotten.txt").write_text("A" * 16 + "\n"),
    "what is forgotten with a short name": lambda folder: (folder / "forgotten.txt").write_text("AAA a reason\n"),
    "what is forgotten with a control character": lambda folder: (folder / "forgotten.txt").write_text(
        "A" * 16 + " a\x07\n"
    ),
    "what is forgotten with no text": lambda folder: (folder / "forgotten.txt").write_bytes(b"A" * 16 + b" \xff\n"),
    "what is forgotten with a marker": lambda folder: (folder / "forgotten.txt").write_text("<<<<<<< HEAD\n"),
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_foreign_file_in_the_folder_is_named_and_never_blocks(how):
    data = HEADER + b"".join(sorted(set(some_lines(random.Random(1), 9))))
    folder = folder_with(data)
    FOREIGN[how](folder)
    with pytest.raises(UserError) as caught:
        read_ledger(folder, salt=SALT)
    one_line(caught.value, "split_ledger")
    if "marker" in how:
        one_line(caught.value, "codex-ml merge")
    with pytest.raises(UserError) as caught:
        rewrite(folder)
    one_line(caught.value, "split_ledger")
    assert (folder / "all.txt").read_bytes() == data


def test_symbolic_links_to_files_and_to_the_folder_are_followed(tmp_path):
    data = HEADER + b"".join(sorted(set(some_lines(random.Random(2), 40))))
    (tmp_path / "cached").write_bytes(data)
    folder = FOLDER
    folder.mkdir()
    (folder / "all.txt").symlink_to(tmp_path / "cached")
    (folder / ".gitignore").write_text("/x\n", encoding="utf-8")
    assert read_meaning(read_ledger(folder, salt=SALT)) == meaning(data)
    (tmp_path / "linked").symlink_to(folder.resolve())
    assert read_meaning(read_ledger(tmp_path / "linked", salt=SALT)) == meaning(data)


@pytest.mark.parametrize("kind", ["missing", "a file", "a link to nothing", "empty"])
def test_a_ledger_that_is_not_a_folder_is_refused(kind):
    folder = FOLDER
    if kind == "a file":
        folder.write_bytes(HEADER)
    elif kind == "a link to nothing":
        folder.symlink_to("nowhere")
    elif kind == "empty":
        folder.mkdir()
        assert len(read_ledger(folder, salt=SALT)) == 0
        return
    with pytest.raises(UserError) as caught:
        read_ledger(folder, salt=SALT)
    one_line(
        caught.value,
        "split_ledger",
        "is not a folder" if kind == "a file" else "is missing; start a new ledger with `mkdir",
    )
    if kind == "a file":
        with pytest.raises(UserError, match="is not a folder"):
            write_folder(folder, [], "")


def test_a_million_contradictory_lines_mean_their_cleanest_answer():
    dice = np.random.default_rng(5)
    contents = [
        base64.urlsafe_b64encode(value.tobytes()) for value in dice.integers(0, 256, (62_500, 12), dtype=np.uint8)
    ]
    units = [number(random.Random(i), 8) for i in range(2)]
    body = sorted(
        b"%b %b AAAAAA %c\n" % (content, unit, letter)
        for content in contents
        for unit in units
        for letter in CLEANEST.encode()
    )
    assert len(body) == 1_000_000
    folder = folder_with(HEADER + b"".join(body))
    ledger = read_ledger(folder, salt=SALT)
    assert len(ledger) == 62_500
    assert {SPLITS[split] for split in ledger.split} == {"test"} and ledger.kept.all()
    assert [SPLITS[split] for split in ledger.unit_split] == ["test", "test"]


@pytest.mark.parametrize("data", [
    b"", b"\n", HEADER, HEADER + b"# dealt with\n", HEADER + b"# dealt with zzzzzzzzzzzzzzzz\n", b"\xff\xff\n\xff",
    b"# dealt with 0123456789abcdef\n" + HEADER, HEADER + b"# dealt with 0123456789abcdef\nnonsense\n",
    b"<<<<<<< HEAD\n" + HEADER, HEADER + b"# dealt with 0123456789abcdef",
])  # fmt: skip
def test_damaged_new_lines_are_refused_and_change_no_ledger(tmp_path, data):
    folder = folder_with(HEADER)
    (tmp_path / "new_ledger.txt").write_bytes(data)
    with pytest.raises(UserError) as caught:
        accept_new_lines(tmp_path / "new_ledger.txt", folder)
    one_line(caught.value, "new_ledger.txt")
    if not data.endswith(b"cdef"):
        with pytest.raises(UserError):
            read_new_lines(tmp_path / "new_ledger.txt")
    assert (folder / "all.txt").read_bytes() == HEADER


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "a\x1b[31mred", "x" * 201, "a\u2028b", "\udcff"])
def test_a_reason_that_is_not_one_line_is_refused(reason):
    folder = folder_with(HEADER)
    with pytest.raises(UserError) as caught:
        add_tombstones(folder, ["A" * 16], reason)
    one_line(caught.value, "--reason")
    assert not len(read_forgotten(folder / "forgotten.txt"))
