"""A ledger of the former form is converted without moving a document; a mistake in it is reported with its line."""

import gzip
import json
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.split.config import Split
from codex_ml.split.ledger.edits import convert_former
from codex_ml.split.ledger.folder import read_ledger
from codex_ml.split.ledger.line_format import salt_mark

from ..dealing import Dealer, families_and_groups

# Written by the release before the present form, which dealt these documents in several steps, some of them with
# folds and strata, and with documents that vanished and came back: so contents have several lines. Beside each ledger,
# where that release then put each document: R, V, T, `.` for none, `-` for one that was taken out.
FORMER = Path(__file__).with_name("former_ledgers")
PARAMS = Split(val=0.3, test=0.3, salt="pepper")
LETTERS = {"train": "R", "val": "V", "test": "T", "": "."}
HEADER = f'{{"salt": "{salt_mark("s")}", "schema": "codex-ml/ledger/1"}}\n'
LINE = {"content": "0" * 31 + "f", "place": "1" * 16, "unit": "a" * 16, "split": "train", "kept": True}


# Document 122 was in quarantine: of its group the ledger knows duplicates only, of a family in train and of one in test.
# Such a group now belongs to test, and so does the duplicate of the test family, whose representative is gone.
JOINS = {"vanished": {122: "T"}, "folds": {}, "strata": {}}


@pytest.mark.parametrize("name", JOINS)
def test_no_document_moves(tmp_path, name):
    former = tmp_path / "split_ledger.ndjson"
    former.write_bytes(gzip.decompress((FORMER / f"{name}.ndjson.gz").read_bytes()))
    lines = [json.loads(line) for line in former.read_text().splitlines()[1:]]
    contents = {line["content"] for line in lines}
    assert len(contents) < len(lines)
    written = convert_former(former, tmp_path / "split_ledger")
    assert (written.added, written.lines) == (len(contents), len(contents))
    assert not former.exists()
    before = (FORMER / f"{name}.txt").read_text().strip()
    documents = families_and_groups()[: len(before)]
    documents = [d._replace(stratum="c" if i % 3 else "python") for i, d in enumerate(documents)]
    chosen = [i for i, letter in enumerate(before) if letter != "-"]
    result = Dealer(tmp_path / "d").deal([documents[i] for i in chosen], PARAMS, tmp_path / "split_ledger")
    after = dict(zip(chosen, (LETTERS[part] for part in result.parts), strict=True))
    assert {i: letter for i, letter in after.items() if letter != before[i]} == JOINS[name]
    assert all(before[i] == "." for i in JOINS[name])
    assert len(read_ledger(result.ledger, salt=PARAMS.salt)) == len(contents)
    assert result.known.size == len(contents)


def former(folder, *lines, header=HEADER):
    path = folder / "split_ledger.ndjson"
    path.write_text(header + "".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_later_of_two_lines_for_one_content_counts(tmp_path):
    convert_former(
        former(tmp_path, LINE, LINE | {"split": "test"}, LINE | {"split": "val", "kept": False}), tmp_path / "l"
    )
    ledger = read_ledger(tmp_path / "l", salt="s")
    assert (ledger.size, ledger.split.tolist(), ledger.kept.tolist()) == (1, [1], [False])
    assert (ledger.place.tolist(), ledger.unit.tolist()) == ([0x11111111], [0xAAAAAAAAAAAAAAAA])


@pytest.mark.parametrize("header", ["", HEADER])
def test_an_empty_ledger_stays_empty(tmp_path, header):
    convert_former(former(tmp_path, header=header), tmp_path / "l")
    assert (tmp_path / "l/all.txt").read_text() == (f"# codex-ml/ledger/2 salt {salt_mark('s')}\n" if header else "")
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_an_interrupted_conversion_is_completed(tmp_path):
    """Both the folder and the former file exist."""
    convert_former(former(tmp_path, LINE), tmp_path / "l")
    assert convert_former(former(tmp_path, LINE, LINE | {"content": "1" * 32}), tmp_path / "l").lines == 2
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_the_file_of_dvc_is_named_among_the_next_steps(tmp_path):
    path = former(tmp_path, LINE)
    assert convert_former(path, tmp_path / "l").next_steps[0].startswith("git rm --cached")
    Path(f"{path}.dvc").touch()
    assert convert_former(former(tmp_path, LINE), tmp_path / "l").next_steps[0] == f"dvc remove {path}.dvc"


FORM = "a line of this ledger must have exactly the keys content, place, unit, split, kept"
VALUE = "split must be one of test, val, train, pool, and kept true or false"
BAD = [
    ("{", "is not JSON ("),
    ("", "is not JSON ("),
    ("x" * 10_000, "is not JSON ("),
    ("<<<<<<< HEAD", "conflict markers of a merge"),
    (json.dumps(LINE)[:-1] + ', "kept": true}', "is not JSON ("),
    ("[]", FORM), ("null", FORM), (json.dumps(LINE | {"more": 1}), FORM), (HEADER.strip(), FORM),
    (json.dumps({k: v for k, v in LINE.items() if k != "kept"}), FORM),
    *((json.dumps(LINE | {key: value}), f"{key} must be {length} hexadecimal digits")
      for key, length in (("content", 32), ("place", 16), ("unit", 16))
      for value in ("", "0" * (length - 1), "A" * length, " " * length, "٣" * length, "0" * (length - 1) + "\n", 5, None)),
    *((json.dumps(LINE | {"split": value}), VALUE) for value in ("Train", "", None, 0, [], {})),
    *((json.dumps(LINE | {"kept": value}), VALUE) for value in ("true", 1, 0, None)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_malformed_line_is_named_and_nothing_is_written(tmp_path, line, message):
    path = tmp_path / "split_ledger.ndjson"
    path.write_text(HEADER + json.dumps(LINE) + "\n" + line + "\n" + json.dumps(LINE) + "\n")
    with pytest.raises(UserError) as error:
        convert_former(path, tmp_path / "l")
    assert str(error.value).startswith(f"{path}:3")
    assert message in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "head", [json.dumps(LINE), "[]", "{}", '"codex-ml/ledger/1"', '{"schema": "codex-ml/ledger/1"}']
)
def test_a_missing_header_is_reported(tmp_path, head):
    with pytest.raises(UserError, match=r'split_ledger.ndjson:1: the first line must be {"schema"'):
        convert_former(former(tmp_path, LINE, header=head + "\n"), tmp_path / "l")


def test_nothing_to_convert_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"split_ledger.ndjson is missing, so there is nothing to convert"):
        convert_former(tmp_path / "split_ledger.ndjson", tmp_path / "l")
