"""The ledger comes back as it was written, only grows, and what is wrong in it is named by its line."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.data.ledger import KEYS, SPLITS, Entry, Ledger, accept, read_ledger, salt_mark, write_ledger
from codex_ml.errors import UserError

NUMBER = st.integers(0, 2**64 - 1)
ENTRIES = st.lists(st.builds(Entry, NUMBER, NUMBER, NUMBER, NUMBER, st.integers(0, 3), st.booleans()), max_size=20)
HEADER = f'{{"salt": "{salt_mark("s")}", "schema": "codex-ml/ledger/1"}}\n'.encode()
LINE = {"content": "0" * 31 + "f", "place": "1" * 16, "unit": "a" * 16, "split": "train", "kept": True}


def rows(ledger):
    return [
        Entry(*row)
        for row in zip(
            *(getattr(ledger, n).tolist() for n in ("high", "low", "place", "unit", "split", "kept")), strict=True
        )
    ]


@given(ENTRIES, ENTRIES)
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back_and_later_lines_count(tmp_path_factory, old, new):
    folder = tmp_path_factory.mktemp("ledger")
    assert write_ledger(folder / "a", None, old, salt="s") == len(old)
    assert write_ledger(folder / "b", folder / "a", [*old[:3], *new], salt="s") == len(old[:3]) + len(new)
    assert (folder / "b").read_bytes().startswith((folder / "a").read_bytes())
    expected = {(e.high, e.low): e for e in [*old, *old[:3], *new]}
    assert rows(read_ledger(folder / "b", salt="s")) == [expected[key] for key in sorted(expected)]


def test_a_line_is_frozen(tmp_path):
    write_ledger(tmp_path / "l", None, [Entry(1, 2**64 - 1, 255, 16, 3, False)], salt="s")
    head, line = (tmp_path / "l").read_bytes().splitlines(keepends=True)
    assert head == HEADER
    assert json.loads(line) == {
        "content": "0000000000000001ffffffffffffffff", "place": "00000000000000ff", "unit": "0000000000000010", "split": "pool", "kept": False,
    }  # fmt: skip
    assert tuple(json.loads(line)) == KEYS


def test_an_empty_file_is_an_empty_ledger(tmp_path):
    (tmp_path / "l").touch()
    assert len(read_ledger(tmp_path / "l", salt="s")) == len(Ledger.of([])) == 0
    write_ledger(tmp_path / "m", tmp_path / "l", [], salt="s")
    assert (tmp_path / "m").read_bytes() == HEADER
    assert len(read_ledger(tmp_path / "m", salt="s")) == 0


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(
        UserError, match=r"l is missing; make an empty file to start a new ledger, or set split\.ledger: false$"
    ):
        read_ledger(tmp_path / "l", salt="s")


def test_another_salt_is_refused_and_not_told(tmp_path):
    write_ledger(tmp_path / "l", None, [], salt="the secret salt")
    assert b"secret" not in (tmp_path / "l").read_bytes()
    with pytest.raises(
        UserError,
        match=r"l:1: this ledger was dealt with another split\.salt; give that one back, or start an empty ledger",
    ):
        read_ledger(tmp_path / "l", salt="s")


def test_a_ledger_without_a_final_newline_is_read_and_continued(tmp_path):
    whole = HEADER + json.dumps(LINE).encode()
    (tmp_path / "l").write_bytes(whole)
    assert len(read_ledger(tmp_path / "l", salt="s")) == 1
    write_ledger(tmp_path / "m", tmp_path / "l", [Entry(9, 9, 9, 9, 1, True)], salt="s")
    assert (tmp_path / "m").read_bytes().startswith(whole + b"\n")
    assert len(read_ledger(tmp_path / "m", salt="s")) == 2


FORM = "a ledger line has the keys content, place, unit, split, kept"
VALUE = "split is one of train, val, test, pool, kept true or false"
BAD = [
    (b"{", "is not JSON (", 2),
    (b"", "is not JSON (", 2),
    (b"\xff", "is not JSON (", 2),
    (b"x" * 10_000, "is not JSON (", 2),
    (json.dumps(LINE).encode()[:-1] + b', "kept": true}', "is not JSON (", 2),
    (b"[]", f": {FORM}", 2),
    (b"null", f": {FORM}", 2),
    (json.dumps(LINE | {"more": 1}).encode(), f": {FORM}", 2),
    (json.dumps({k: v for k, v in LINE.items() if k != "kept"}).encode(), f": {FORM}", 2),
    *((json.dumps(LINE | {key: value}).encode(), f": {key} must be {length} hexadecimal digits", 2)
      for key, length in (("content", 32), ("place", 16), ("unit", 16))
      for value in ("", "0" * (length - 1), "0" * (length + 1), "A" * length, "g" * length, " " * length, "٣" * length, "0" * (length - 1) + "\n", 5, None, ["0"] * length)),
    *((json.dumps(LINE | {"split": value}).encode(), f": {VALUE}", 2) for value in ("Train", "", None, 0, [], {})),
    *((json.dumps(LINE | {"kept": value}).encode(), f": {VALUE}", 2) for value in ("true", 1, 0, None)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message", "number"), BAD)
def test_a_malformed_line_is_named(tmp_path, line, message, number):
    (tmp_path / "l").write_bytes(HEADER + line + b"\n" + json.dumps(LINE).encode() + b"\n")
    with pytest.raises(UserError) as error:
        read_ledger(tmp_path / "l", salt="s")
    assert str(error.value).startswith(f"{tmp_path / 'l'}:{number}{'' if message.startswith(':') else ' '}{message}")
    if "JSON" in message:
        assert str(error.value).endswith("); restore the file from Git or DVC")
    else:
        assert str(error.value) == f"{tmp_path / 'l'}:{number}{message}"


@pytest.mark.parametrize(
    "head", [json.dumps(LINE), "[]", "{}", '"codex-ml/ledger/1"', '{"schema": "codex-ml/ledger/2"}']
)
def test_a_missing_header_is_told(tmp_path, head):
    (tmp_path / "l").write_text(head + "\n")
    with pytest.raises(
        UserError, match=re.escape('l:1: the first line of a ledger is {"schema": "codex-ml/ledger/1", ...}')
    ):
        read_ledger(tmp_path / "l", salt="s")


def test_a_hundred_thousand_lines(tmp_path):
    dice = np.random.Generator(np.random.PCG64(1))
    numbers = dice.integers(0, 2**64, size=(100_000, 4), dtype=np.uint64).tolist()
    entries = [Entry(*row, number % 4, number % 3 > 0) for number, row in enumerate(numbers)]
    write_ledger(tmp_path / "l", None, entries, salt="s")
    ledger = read_ledger(tmp_path / "l", salt="s")
    assert rows(ledger) == sorted(entries, key=lambda e: (e.high, e.low))
    assert (
        sum(getattr(ledger, name).nbytes for name in ("high", "low", "place", "unit", "split", "kept")) == 34 * 100_000
    )
    assert {SPLITS[split] for split in np.unique(ledger.split)} == set(SPLITS)


def test_a_next_ledger_is_accepted_when_it_goes_on_from_this_one(tmp_path):
    now, later = tmp_path / "now", tmp_path / "later"
    with pytest.raises(UserError, match=r"later is missing; `dvc repro split` makes it$"):
        accept(later, now)
    write_ledger(now, None, [Entry(1, 1, 1, 1, 0, True)], salt="s")
    write_ledger(later, now, [Entry(2, 2, 2, 2, 0, True), Entry(3, 3, 3, 3, 0, True)], salt="s")
    whole = later.read_bytes()
    assert (accept(later, now), accept(later, now)) == (2, 0)
    assert now.read_bytes() == later.read_bytes() == whole
    now.write_bytes(whole.replace(b"train", b"val"))
    for other in (whole, whole[:-1], b""):
        later.write_bytes(other)
        before = now.read_bytes()
        with pytest.raises(UserError, match="does not begin with what"):
            accept(later, now)
        assert now.read_bytes() == before


def test_the_number_of_accepted_lines_is_right_without_a_final_newline(tmp_path):
    (tmp_path / "now").write_bytes(HEADER + json.dumps(LINE).encode())
    write_ledger(tmp_path / "later", tmp_path / "now", [Entry(2, 2, 2, 2, 0, True)], salt="s")
    assert accept(tmp_path / "later", tmp_path / "now") == 1
