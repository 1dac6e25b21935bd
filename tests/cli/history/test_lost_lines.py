"""Lines of the ledger that HEAD has and the folder lacks are found by `check` and by `verify`, whatever cut them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from codex_ml.cli.checks.hash_chain import verified_links
from codex_ml.cli.checks.workspace import check_workspace
from codex_ml.cli.history.lost_lines import (
    baselines,
    lost_in,
    version_in_index,
    versions_between,
)
from codex_ml.cli.history.unite import unite
from codex_ml.cli.history.versions import version_in_folder
from codex_ml.cli.param_rules import load_params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.split.ledger.line_format import salt_mark

FOLDER = Path("data/split_ledger")
LINES = [f"{letter * 16} {'A' * 11} {'A' * 6} T\n" for letter in "ABCDEF"]


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def header() -> str:
    return f"# codex-ml/ledger/2 salt {salt_mark(load_params().split.salt)}\n"


@pytest.fixture
def committed(workspace: Path, repository: Path) -> Path:
    """A workspace whose HEAD has six lines and a tombstone, and all of the library: `check` requires it in Git."""
    Path("src").unlink()
    shutil.copytree(repository / "src", "src", ignore=shutil.ignore_patterns("__pycache__"))
    FOLDER.joinpath("all.txt").write_text(header() + "".join(LINES))
    FOLDER.joinpath("forgotten.txt").write_text(f"{'B' * 16} she asked\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "six lines")
    return workspace


def test_check_says_how_many_lines_are_gone_and_what_brings_them_back(committed):
    FOLDER.joinpath("all.txt").write_text(header() + "".join(LINES[2:]))
    with pytest.raises(UserError) as error:
        check_workspace()
    assert str(error.value) == (
        "data/split_ledger lacks 2 lines that HEAD has (in all.txt), so documents of the test set could get into train; "
        "`codex-ml merge` brings them back. To take documents out on purpose, use `codex-ml ledger forget`"
    )


def test_a_tombstone_that_is_gone_is_found_too(committed):
    FOLDER.joinpath("forgotten.txt").unlink()
    with pytest.raises(UserError, match="lacks 1 tombstone that HEAD has"):
        check_workspace()
    FOLDER.joinpath("all.txt").write_text("")
    with pytest.raises(UserError, match="lacks 6 lines and 1 tombstone that HEAD has"):
        check_workspace()


@pytest.mark.parametrize("name", ["all.txt", "forgotten.txt"])
def test_what_was_damaged_in_the_past_and_repaired_since_stops_no_one(committed, name):
    """Only a rewritten history could mend the commit itself."""
    file = FOLDER / name
    whole = file.read_bytes()
    for data in (whole + b"half a line\x01\n", whole):
        file.write_bytes(data)
        git("add", "-A")
        git("commit", "-q", "-m", "a change")
    check_workspace()
    assert unite().left == {}
    assert list(lost_in(version_in_index(), versions_between("HEAD~2", "HEAD"), salt=None)) == []


def test_the_same_lines_in_another_form_are_not_lost(committed):
    file = FOLDER / "all.txt"
    forms = {
        "unsorted": header() + "".join(LINES[::-1]),
        "twice": header() + "".join(LINES + LINES),
        "two headers": (header() + "".join(LINES[:3])) + (header() + "".join(LINES[3:])),
        "other file": header() + "".join(LINES),
        "windows": (header() + "".join(LINES)).replace("\n", "\r\n"),
        "more lines": header() + "".join([*LINES, LINES[0].replace("T", "V")]),
    }
    for form, text in forms.items():
        file.write_bytes(text.encode())
        if form == "other file":
            file.rename(FOLDER / "other.txt")
        found = lost_in(version_in_folder(), baselines(), salt=load_params().split.salt)
        assert list(found) == [], form
        (FOLDER / "other.txt").unlink(missing_ok=True)
    check_workspace()


def test_a_ledger_that_starts_again_with_another_salt_has_lost_nothing(committed):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("salt: codex-ml", "salt: another"))
    for file in FOLDER.iterdir():
        file.write_text("")
    with pytest.raises(UserError, match="lacks 1 tombstone"):  # what was forgotten stays forgotten
        check_workspace()
    git("checkout", "--", str(FOLDER / "forgotten.txt"))
    check_workspace()


def test_verify_finds_a_result_whose_ledger_was_cut(chain):
    chain.write(
        "data/split_ledger/all.txt",
        b"# codex-ml/ledger/2 salt " + salt_mark("codex-ml").encode() + b"\n" + LINES[0].encode(),
    )
    git("init", "-q")
    git("add", "-Af")
    git("commit", "-q", "-m", "run")
    before = list(verified_links())
    Path("data/split_ledger/all.txt").write_text("")
    with pytest.raises(CheckFailed, match="lacks 1 line that HEAD has"):
        list(verified_links())
    assert before
