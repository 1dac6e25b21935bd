"""Accepted findings: the file is strict, an acceptance ends after its day, and the commands say so."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.checks import workspace as checks
from codex_ml.cli.main import whole_app
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.safety_audit import accepted
from codex_ml.safety_audit.accepted import ACCEPTED, read_accepted, refuse_expired

GOOD = '- id: "3f0c9a1b2d4e"\n  reason: a test key of the documentation\n  expires: 2027-01-31\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "accepted.yaml"


def at(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    monkeypatch.setattr(accepted, "today_utc", lambda: date.fromisoformat(day))


def test_an_entry_is_read_with_and_without_a_name(file: Path) -> None:
    file.write_text(GOOD + GOOD.replace("3f0c9a1b2d4e", "012345678901") + "  by: R. Reviewer\n")
    first, second = read_accepted(file, clean=str)
    assert (first.id, first.reason, first.expires) == (
        "3f0c9a1b2d4e", "a test key of the documentation", date(2027, 1, 31),
    )  # fmt: skip
    assert (first.by, second.by) == (None, "R. Reviewer")


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_file_of_comments_accepts_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert read_accepted(file, clean=str) == ()


@pytest.mark.shipped
def test_the_file_that_is_shipped_accepts_nothing_and_its_example_is_valid(repository: Path, file: Path) -> None:
    shipped = (repository / ACCEPTED).read_text("utf-8")
    assert read_accepted(repository / ACCEPTED, clean=str) == ()
    example = shipped[shipped.index("# - id") :].replace("# ", "")
    file.write_text(example)
    (entry,) = read_accepted(file, clean=str)
    assert entry.by == "R. Reviewer"


MISTAKES = [
    ("a mapping", "findings: []\n", "{}: expected a list of entries with id, reason and expires"),
    ("a text", "hello\n", "{}: expected a list of entries"),
    ("an entry that is a text", "- 3f0c9a1b2d4e\n", "{}:1: expected an entry with the keys id, reason and expires"),
    ("an id of digits", GOOD.replace('"3f0c9a1b2d4e"', "123456789012"), "{}:1: id: this id is a number in YAML; put it in quotes"),
    ("an id with an exponent", GOOD.replace('"3f0c9a1b2d4e"', "1234567890e1"), "{}:1: id: this id is a number in YAML"),
    ("a short id", GOOD.replace("3f0c", "3f0"), "{}:1: id: expected the id of a finding, 12 digits"),
    ("an id in capitals", GOOD.replace("3f0c", "3F0C"), "{}:1: id: expected the id of a finding"),
    ("no id", GOOD.replace('id: "3f0c9a1b2d4e"\n  ', ""), "{}:1: the key id is missing"),
    ("no reason", GOOD.replace("  reason: a test key of the documentation\n", ""), "{}:1: the key reason is missing"),
    ("an empty reason", GOOD.replace("a test key of the documentation", '""'), "{}:2: reason: expected one line of text"),
    ("a reason of blanks", GOOD.replace("a test key of the documentation", '"  "'), "{}:2: reason: expected one line of text"),
    ("a reason of two lines", GOOD.replace("a test key of the documentation", '"a\\nb"'), "{}:2: reason: expected one line of text"),
    ("a reason with an escape of the terminal", GOOD.replace("a test key of the documentation", '"a\\e[31m"'), "{}:2: reason: expected one line of text"),
    ("a reason with a NUL", GOOD.replace("a test key of the documentation", '"a\\0b"'), "{}:2: reason: expected one line of text"),
    ("a reason that turns the direction of writing", GOOD.replace("a test key of the documentation", '"a\\u202eb"'), "{}:2: reason: expected one line of text"),
    ("a reason that is a number", GOOD.replace("a test key of the documentation", "5"), "{}:2: reason: input should be a valid string; found 5"),
    ("a long reason", GOOD.replace("a test key of the documentation", "x" * 501), "{}:2: reason: "),
    ("no day", GOOD.replace("  expires: 2027-01-31\n", ""), "{}:1: the key expires is missing"),
    ("a day in quotes", GOOD.replace("2027-01-31", '"2027-01-31"'), "{}:3: expires: expected a day without quotes"),
    ("a day with a time", GOOD.replace("2027-01-31", "2027-01-31T10:00:00Z"), "{}:3: expires: expected a day without quotes and without a time"),
    ("a day that does not exist", GOOD.replace("2027-01-31", "2027-02-30"), "{}:3: '2027-02-30' looks like a value of type timestamp"),
    ("never", GOOD.replace("2027-01-31", "never"), "{}:3: expires: expected a day"),
    ("an unknown key", GOOD + "  until: 2028-01-01\n", "{}:4: until is not a key of an entry; known are id, reason, expires, by"),
    ("a misspelt key", GOOD.replace("expires", "expire"), "{}:3: expire is not a key of an entry; did you mean expires?"),
    ("a key given twice", GOOD + "  reason: other\n", '{}:4: found duplicate key "reason"'),
    ("an id given twice", GOOD + GOOD, "{0}:4: 3f0c9a1b2d4e is accepted by {0}:1 too; keep one of both"),
    ("a conflict of a merge", "<<<<<<< a\n" + GOOD + "=======\n>>>>>>> b\n", "{}:1: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_accepted(file, clean=str)
    assert str(error.value).startswith(said.format(file))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_that_is_not_utf8_are_refused(file: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_accepted(file, clean=str)
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_accepted(file, clean=str)


SECRET = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # pragma: allowlist secret
NAMED = [
    ("as a reason that is not text", GOOD.replace("a test key of the documentation", f"[{SECRET}]")),
    ("as a key", GOOD + f"  {SECRET}: x\n"),
    ("as a key given twice", GOOD + f"  {SECRET}: x\n" * 2),
    ("as an alias", GOOD + f"  by: *{SECRET}\n"),
    ("as a day", GOOD.replace("2027-01-31", SECRET)),
    ("as an id", GOOD.replace("3f0c9a1b2d4e", SECRET)),
]


@pytest.mark.parametrize("text", [row[1] for row in NAMED], ids=[row[0] for row in NAMED])
def test_a_message_never_shows_a_secret_of_the_file(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_accepted(file, clean=lambda text: text.replace(SECRET, "<SECRET>"))
    assert SECRET not in str(error.value)
    assert str(error.value).startswith(f"{file}:")


def test_a_message_shows_no_control_character_of_the_file(file: Path) -> None:
    file.write_text(GOOD + '  "\\e[31m\u202eby": x\n')
    with pytest.raises(UserError) as error:
        read_accepted(file, clean=str)
    assert str(error.value).isprintable()


def test_the_reason_of_an_expired_entry_is_shown_redacted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(GOOD.replace("a test key", f"{SECRET} is a test key"))
    at(monkeypatch, "2028-01-01")
    with pytest.raises(CheckFailed, match="<SECRET> is a test key of the documentation") as error:
        refuse_expired(read_accepted(file, clean=str), file, clean=lambda text: text.replace(SECRET, "<SECRET>"))
    assert SECRET not in str(error.value)


def test_two_thousand_entries_are_read_and_a_million_are_refused_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of entries are looked for only where a message names them: that reads the whole file."""
    monkeypatch.setattr(accepted, "line_of", lambda *_: pytest.fail("no entry has a mistake"))
    file.write_text("".join(GOOD.replace("3f0c9a1b2d4e", f"{number:012x}") for number in range(2000)))
    assert len(read_accepted(file, clean=str)) == 2000
    file.write_text(GOOD * 10**6)
    with pytest.raises(UserError) as error:
        read_accepted(file, clean=str)
    assert str(error.value).startswith(f"{file} is larger than 256 KiB; for so many findings of one kind")


BOMB = "- &a [x]\n" + "".join(
    f"- &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("- id", "- &a\n  id") + "- *a\n",
        "- &a {id: '3f0c9a1b2d4e', reason: x, expires: 2027-01-31}\n" + "- <<: *a\n",
        BOMB,
    ],
)  # fmt: skip
def test_anchors_repeat_no_entry_and_blow_nothing_up(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_accepted(file, clean=str)
    assert "\n" not in str(error.value)


def test_an_acceptance_of_the_first_digits_of_an_id_is_refused(file: Path) -> None:
    for short in ("3f0c9a1b2d4", "3f0c", "3f0c9a1b2d4e0", "3f0c9a1b2d4\u0065"[:11]):
        file.write_text(GOOD.replace("3f0c9a1b2d4e", short))
        with pytest.raises(UserError, match="expected the id of a finding, 12 digits"):
            read_accepted(file, clean=str)


def test_an_entry_counts_on_its_last_day_and_is_refused_on_the_next(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(GOOD + GOOD.replace("3f0c", "ffff").replace("2027-01-31", "2026-12-31"))
    entries = read_accepted(file, clean=str)
    at(monkeypatch, "2026-12-31")
    refuse_expired(entries, clean=str)
    at(monkeypatch, "2027-01-31")
    with pytest.raises(CheckFailed) as error:
        refuse_expired(entries, file, clean=str)
    (line,) = str(error.value).splitlines()
    assert line == (
        f"{file}: finding ffff9a1b2d4e was accepted until 2026-12-31 (a test key of the documentation); review it again, "
        "then remove the entry or give it a new day"
    )
    at(monkeypatch, "2027-02-01")
    with pytest.raises(CheckFailed) as error:
        refuse_expired(entries, file, clean=str)
    assert re.findall("finding ([0-9a-f]{12}) ", str(error.value)) == ["3f0c9a1b2d4e", "ffff9a1b2d4e"]


@pytest.mark.parametrize(("text", "code", "said"), [
    (GOOD, 0, ""),
    (GOOD.replace("2027", "2020"), 1, "finding 3f0c9a1b2d4e was accepted until 2020-01-31"),
    (GOOD.replace("expires", "expire"), 2, "data/accepted_findings.yaml:3: expire is not a key of an entry"),
])  # fmt: skip
def test_check_refuses_an_acceptance_that_has_ended_without_a_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int, said: str
) -> None:
    at(monkeypatch, "2026-12-01")
    monkeypatch.setattr(checks, "problems", lambda *_: ())  # which take seconds, and are tested elsewhere
    (workspace / ACCEPTED).write_text(text)
    done = CliRunner().invoke(whole_app(), ["check"])
    assert done.exit_code == code, done.output
    assert said in done.stderr
