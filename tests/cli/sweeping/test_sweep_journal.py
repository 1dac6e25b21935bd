"""The journal: a kill at any byte costs at most the line that was being written."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.cli.sweeping.experiment_run import command_lock
from codex_ml.cli.sweeping.sweep_journal import JOURNAL, Journal, SweepSettings, SweepTrial
from codex_ml.core.errors import UserError

SETTINGS = SweepSettings(
    name="s", space=["train.lr=uniform(0,1)"], method="sobol", metric="train.best_val_loss", direction="min", seed=1,
    stop_early=False, head="0" * 40,
)  # fmt: skip


def trial(number: int) -> SweepTrial:
    return SweepTrial(
        number=number, params={"train.lr": f"0.{number}1"}, state="finished", value=1.0 / 3, curve=[(10, 0.1)],
        experiment=f"s-{number}", commit=None, seconds=0.1, why="",
    )  # fmt: skip


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SETTINGS)
    for number in range(3):
        journal.add(trial(number))
    whole = (tmp_path / JOURNAL).read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole) + 1, 7):
        (tmp_path / JOURNAL).write_bytes(whole[:cut])
        again = Journal(tmp_path, SETTINGS)
        kept = max(0, sum(end <= cut for end in ends) - 1)
        assert again.trials == {number: trial(number) for number in range(kept)}
        for number in range(kept, 3):
            again.add(trial(number))
        assert (tmp_path / JOURNAL).read_bytes() == whole


def test_another_sweep_of_the_same_name_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS)
    with pytest.raises(UserError, match="of a sweep with another seed: 1, not 2; give this sweep another --name"):
        Journal(tmp_path, SETTINGS.model_copy(update={"seed": 2}))
    with pytest.raises(UserError, match="another head"):
        Journal(tmp_path, SETTINGS.model_copy(update={"head": "1" * 40}))


@pytest.mark.parametrize("line", ["{}", "[]", "NaN", '{"a": 1, "a": 2}', "\udcff", '{"number": 0}'])
def test_a_damaged_journal_is_one_line_for_the_user(tmp_path: Path, line: str) -> None:
    Journal(tmp_path, SETTINGS).add(trial(0))
    with (tmp_path / JOURNAL).open("ab") as handle:
        handle.write(line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(UserError, match=r"journal.ndjson:3"):
        Journal(tmp_path, SETTINGS)


DAMAGES = {
    "value of a trial that failed": (lambda t: t | {"state": "failed"}, "a finished trial has a value"),
    "no value": (lambda t: t | {"value": None}, "a finished trial has a value"),
    "number below 0": (lambda t: t | {"number": -1}, "greater than or equal to 0"),
    "number that is there twice": (lambda t: t | {"number": 0}, "trial 0 is there twice; delete one of the lines"),
    "another state": (lambda t: t | {"state": "good"}, "finished"),
    "a key more": (lambda t: t | {"note": ""}, "note"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_edited_journal_is_one_line_for_the_user_and_stays(tmp_path: Path, name: str) -> None:
    change, message = DAMAGES[name]
    Journal(tmp_path, SETTINGS).add(trial(0))
    file = tmp_path / JOURNAL
    edited = file.read_text() + json.dumps(change(trial(1).model_dump(mode="json"))) + '\n{"torn": '
    file.write_text(edited)
    with pytest.raises(UserError, match=r"journal.ndjson:3: ") as raised:
        Journal(tmp_path, SETTINGS)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert file.read_text() == edited


def test_a_journal_of_another_sweep_stays_as_it_is(tmp_path: Path) -> None:
    Journal(tmp_path, SETTINGS).add(trial(0))
    file = tmp_path / JOURNAL
    torn = file.read_bytes()[:-9]
    file.write_bytes(torn)
    with pytest.raises(UserError, match=r"a sweep with another space: \['train.lr=uniform\(0,1\)'\], not \['a.b=1'\]"):
        Journal(tmp_path, SETTINGS.model_copy(update={"space": ["a.b=1"]}))
    assert file.read_bytes() == torn


FULL = """
import resource, sys
from pathlib import Path
from codex_ml.cli.sweeping.sweep_journal import Journal, SweepSettings, SweepTrial
from codex_ml.core.errors import one_line_errors

folder, room = Path(sys.argv[1]), int(sys.argv[2])
settings, trial = SweepSettings.model_validate_json(sys.argv[3]), SweepTrial.model_validate_json(sys.argv[4])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
file = folder / "journal.ndjson"
resource.setrlimit(resource.RLIMIT_FSIZE, ((file.stat().st_size if file.exists() else 0) + room, hard))
try:
    with one_line_errors():
        Journal(folder, settings).add(trial)
finally:  # coverage writes a file of its own at exit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


@pytest.mark.parametrize("begun", [False, True])
def test_a_full_disk_costs_the_line_that_was_being_written_and_no_other(tmp_path: Path, begun: bool) -> None:
    """The limit of the file's size stands for the disk: room for 40 bytes, so the kernel writes 40 of the line."""
    if begun:
        Journal(tmp_path, SETTINGS).add(trial(0))
    before = Path(tmp_path / JOURNAL).read_bytes() if begun else b""
    given = [json.dumps(each.model_dump(mode="json")) for each in (SETTINGS, trial(1))]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), "40", *given], capture_output=True, encoding="utf-8"
    )
    said = f"a file would grow beyond the size limit of this process (ulimit -f) ({tmp_path / JOURNAL})"
    assert (done.returncode, done.stderr) == (1, f"error: {said}\n")
    assert (tmp_path / JOURNAL).read_bytes() == before
    again = Journal(tmp_path, SETTINGS)
    again.add(trial(1))
    assert again.trials == Journal(tmp_path, SETTINGS).trials == {n: trial(n) for n in ((0, 1) if begun else (1,))}


def test_a_line_that_the_disk_cannot_keep_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, SETTINGS)
    before = (tmp_path / JOURNAL).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left") as raised:
            journal.add(trial(0))
    assert raised.value.filename == str(tmp_path / JOURNAL)
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert journal.trials == {}


def test_one_sweep_holds_the_lock_of_a_folder(tmp_path: Path) -> None:
    with command_lock(tmp_path / "s"), (tmp_path / "s/lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "s/lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_in_which_dvc_cannot_run_an_experiment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run --temp` writes the path of its cache as ASCII, after it has changed params.yaml."""
    odd = tmp_path / "ünï"
    odd.mkdir()
    monkeypatch.chdir(odd)
    message = r"ünï is not plain ASCII, and DVC cannot run an experiment in a temporary copy there; move the checkout"
    with pytest.raises(UserError, match=message), command_lock(Path("s")):
        pass
    assert not Path("s").exists()
