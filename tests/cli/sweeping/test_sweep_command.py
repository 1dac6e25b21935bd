"""`codex-ml sweep` as a command: mistakes, and what it prints. `test_real_sweep.py` runs it with the real DVC."""

from __future__ import annotations

import csv
import fcntl
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.sweeping import experiment_run, study, sweep_result
from codex_ml.cli.sweeping.experiment_run import mend_locks
from codex_ml.cli.sweeping.search_space import read_axes
from codex_ml.cli.sweeping.sweep_journal import SweepTrial
from codex_ml.cli.sweeping.sweep_result import SweepResult, best_of
from codex_ml.cli.sweeping.trial_experiment import Launch, command, experiment_name, read_curve

from ...json_schema_checker import problems

LR = ("--set", "train.lr=choice(1e-3,2e-3,4e-3)")


@pytest.fixture
def project(workspace: Path) -> Path:
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words], check=True)
    return workspace


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every experiment ends at once; the metric is 1000 times the rate, and the rate 2e-3 fails."""

    def run(launch: Launch, target: str, stop_at: object) -> tuple[int, str]:
        launch.log.touch()
        return 0 if launch.params["train.lr"] != "2e-3" else 1, "error: out of \x1b[31mluck\nERROR: failed to run: x"

    names: dict[str, Launch] = {}

    def commit(launch: Launch) -> str | None:
        names[launch.name] = launch
        return launch.name if launch.log.exists() and launch.params["train.lr"] != "2e-3" else None

    monkeypatch.setattr(study, "run_experiment", run)
    monkeypatch.setattr(study.Study, "_left_complete", lambda self, launch: None)
    monkeypatch.setattr(Launch, "commit", commit)
    monkeypatch.setattr(
        study, "result_of", lambda commit, metric: (1000 * float(names[commit].params["train.lr"]), [(10, 2.0)], "")
    )


def sweep(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(whole_app(), ["sweep", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_table_begins_with_the_best_trial(project: Path, fake: None) -> None:
    code, out, err = sweep(*LR, "--method", "grid", "--name", "s", "--metric", "train.best_val_loss:max")
    assert code == 0, err
    assert [line.split()[:3] for line in out.splitlines()[:4]] == [
        ["trial", "train.best_val_loss", "train.lr"],
        ["2", "4", "4e-3"],
        ["0", "1", "1e-3"],
        ["1", "failed", "2e-3"],
    ]
    assert out.splitlines()[4:] == [
        "",
        "3 trials; logs/sweeps/s: journal.ndjson, trials.csv, trials.svg",
        "best: `dvc exp apply s-002-lr-0.004`, then `dvc repro`",
    ]
    assert "dvc ended with 1: error: out of \\x1b[31mluck" in err
    with Path("logs/sweeps/s/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["train.lr"], row["train.best_val_loss"]) for row in rows] == [
        ("0", "1e-3", "1.0"), ("1", "2e-3", ""), ("2", "4e-3", "4.0"),
    ]  # fmt: skip
    assert Path("logs/sweeps/s/trials.svg").read_text().startswith("<svg")


def test_one_trial_is_not_called_trials(project: Path, fake: None) -> None:
    assert "\n1 trial; logs/sweeps/s: " in sweep(*LR, "--method", "grid", "--trials", "1", "--name", "s")[1]


def test_the_json_is_one_object_of_its_schema(project: Path, fake: None) -> None:
    code, out, err = sweep(*LR, "--method", "grid", "--json")
    assert code == 0, err
    found = SweepResult.model_validate_json(out)
    assert problems(json.loads(out), output_schema("sweep")) == []
    assert json.loads(out) == found.model_dump(mode="json")
    assert (found.best, found.settings.direction, [t.state for t in found.trials]) == (
        0, "min", ["finished", "failed", "finished"],
    )  # fmt: skip
    again = sweep(*LR, "--method", "grid", "--json")
    assert (again[0], again[1], again[2]) == (0, out, ""), "nothing runs twice"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.lr=1e-3,2e-3"], "for several values write"),
        ([*LR], "--method sobol never ends by itself; give --trials, --minutes, or both"),
        ([*LR, "--method", "bayes"], "--method bayes: expected grid, random, sobol, tpe"),
        (["--set", "train.lr=uniform(0,1)", "--method", "grid"], "has infinitely many"),
        ([*LR, "--trials", "4", "--metric", "train.best_val_loss"], "expected STAGE.NAME:min"),
        ([*LR, "--trials", "4", "--metric", "trian.loss:min"], "no stage trian writes metrics; stages that do: ingest"),
        ([*LR, "--trials", "4", "--name", "../x"], "expected up to 41 letters"),
        (["--set", "train.lrr=choice(1,2)", "--trials", "2"], "train.lrr is not a parameter; did you mean train.lr?"),
        (["--set", "train.lr=choice(a,b)", "--trials", "2"], "expected a number without quotes"),
        (["--set", "pack.seq_len=choice(8192,16384)", "--trials", "2"], "longer than the model's positions"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(project: Path, arguments: list[str], message: str) -> None:
    code, out, err = sweep(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("best_loss", "did you mean best_val_loss?"),
        ("val", "did you mean val.loss?"),
        ("note", "it has: best_val_loss, val.loss."),
        ("a.b", "it has: best_val_loss, val.loss."),
    ],
)
def test_a_number_that_the_last_run_lacks_is_refused_before_any_trial(project: Path, name: str, hint: str) -> None:
    Path("reports/train").mkdir(parents=True, exist_ok=True)
    written = {"best_val_loss": 2.5, "val": {"loss": 3}, "note": "x", "good": True, "a.b": 1}
    Path("reports/train/metrics.json").write_text(json.dumps(written))
    code, out, err = sweep(*LR, "--trials", "1", "--metric", f"train.{name}:min", "--name", "s")
    assert (code, out, err) == (
        2,
        "",
        f"error: --metric train.{name}: reports/train/metrics.json of the last run has no number {name}; {hint} If only "
        "other settings write it, run `dvc repro train` with them first, and commit\n",
    )
    assert not Path("logs/sweeps/s").exists()


@pytest.mark.parametrize("metric", ["train.val.loss", "evaluate.mine"])
def test_a_number_of_the_last_run_and_any_number_of_a_stage_that_never_ran_rank_trials(
    project: Path, fake: None, metric: str
) -> None:
    Path("reports/train").mkdir(parents=True, exist_ok=True)
    Path("reports/train/metrics.json").write_text('{"val": {"loss": 3}}')
    assert not Path("reports/evaluate/metrics.json").exists()
    for words in (["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "run"]):
        subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words], check=True)
    assert sweep(*LR, "--method", "grid", "--metric", f"{metric}:min")[0] == 0


def test_the_time_of_a_trial_that_a_killed_sweep_left_complete_is_empty(
    project: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Launch.commit  # the fake's: there is an experiment once the log exists

    def left(self: study.Study, launch: Launch) -> str | None:
        if launch.params["train.lr"] == "1e-3":
            launch.log.touch()
        return commit(launch)

    monkeypatch.setattr(study.Study, "_left_complete", left)
    code, out, err = sweep(*LR, "--method", "grid", "--name", "s")
    assert code == 0, err
    with Path("logs/sweeps/s/trials.csv").open() as file:
        assert [bool(row["seconds"]) for row in csv.DictReader(file)] == [False, True, True]
    cells = [line.split() for line in out.splitlines()[1:3]]
    assert cells[0] == ["0", "1", "1e-3", "s-000-lr-0.001"]
    assert (len(cells[1]), cells[1][-1]) == (5, "s-002-lr-0.004")
    shown = json.loads(sweep(*LR, "--method", "grid", "--name", "s", "--json")[1])
    assert shown["trials"][0]["seconds"] is None
    assert problems(shown, output_schema("sweep")) == []


def test_a_changed_file_or_a_changed_setting_is_refused(project: Path, fake: None) -> None:
    assert sweep(*LR, "--trials", "2", "--name", "s")[0] == 0
    code, _, err = sweep(*LR, "--trials", "2", "--name", "s", "--seed", "2")
    assert code == 2 and "another seed: 1, not 2" in err
    with Path("params.yaml").open("a") as file:
        file.write("# changed\n")
    code, _, err = sweep(*LR, "--trials", "2", "--name", "s")
    assert (
        code == 2 and "1 tracked files differ from the commit" in err and "all trials must run on the same files" in err
    )


def test_the_files_are_looked_at_once_no_trial_runs(project: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC writes the values of a trial into params.yaml while it sets it up, and puts the file back."""
    whole = Path("params.yaml").read_text()
    Path("params.yaml").write_text(whole + "# of a trial that a killed sweep left\n")

    @contextmanager
    def lock(folder: Path) -> Iterator[int]:
        folder.mkdir(parents=True)
        Path("params.yaml").write_text(whole)
        yield 0

    monkeypatch.setattr(experiment_run, "command_lock", lock)
    code, _, err = sweep(*LR, "--method", "grid")
    assert code == 0, err


EDITS = {
    "another value": ("sobol", '"train.lr": "1e-3"', '"train.lr": "4e-3"'),
    "a value outside": ("tpe", '"train.lr": "1e-3"', '"train.lr": "7"'),
    "a value that is no number": ("tpe", '"model.dropout": "0', '"model.dropout": "x'),
    "another key": ("tpe", '"train.lr"', '"train.warmup_steps"'),
    "a trial that the grid lacks": ("grid", '"number": 0', '"number": 30'),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_trial_is_refused(project: Path, fake: None, name: str) -> None:
    method, old, new = EDITS[name]
    options = [
        "--set",
        "train.lr=choice(1e-3,4e-3)",
        "--set",
        "train.accumulation=1",
        "--method",
        method,
        "--name",
        "s",
    ]
    options += [] if method == "grid" else ["--set", "model.dropout=uniform(0,0.1)"]
    assert sweep(*options, "--trials", "2")[0] == 0
    file = Path("logs/sweeps/s/journal.ndjson")
    lines = file.read_text().splitlines(keepends=True)
    edited = next(number for number, line in enumerate(lines) if number and old in line)
    lines[edited] = lines[edited].replace(old, new)
    file.write_text("".join(lines))
    code, out, err = sweep(*options, "--trials", "2")
    assert (code, out) == (2, "")
    assert "has values that this sweep does not propose; delete its line to run the trial again" in err
    assert err.count("\n") == 1
    lines.pop(edited)
    file.write_text("".join(lines))
    assert sweep(*options, "--trials", "2")[0] == 0


def test_a_name_says_what_the_trial_tries_and_git_allows_it() -> None:
    params = {"train.lr": "0.000312345", "model.lora.targets": "[q_proj, 'v..x']", "train.schedule": "wsd"}
    name = experiment_name("s", 12, params, list(params))
    assert name == "s-012-lr-0.000312-targets-_q_proj_v.x_-schedule-wsd"
    subprocess.run(["git", "check-ref-format", f"refs/exps/ab/cd/{name}"], check=True)


def test_dvc_gets_each_parameter_and_the_stage_of_the_metric() -> None:
    words = command(Launch("n", {"train.lr": "1e-3", "model.layers": "2"}, "0" * 40, Path("l"), 0), "train")
    assert words[1:] == [
        "-P", "-m", "dvc", "exp", "run", "--temp", "--name", "n", "-S", "++train.lr=0.001", "-S", "++model.layers=2", "train",
    ]  # fmt: skip


def test_a_curve_that_is_being_written_ends_at_its_last_whole_line() -> None:
    assert read_curve("step\tloss\n10\t3.5\n20\tnan\n30\t2.5\n40\t1") == [(10, 3.5), (30, 2.5)]
    assert read_curve("") == read_curve("step\tloss") == []


def test_of_equal_trials_the_first_is_best_and_unfinished_ones_never() -> None:
    def trial(number: int, value: float | None, state: str) -> SweepTrial:
        return SweepTrial.model_validate(
            {"number": number, "params": {}, "state": state, "value": value, "curve": [], "experiment": ""}
            | {"commit": None, "seconds": 0.0, "why": ""}
        )

    trials = [
        trial(0, None, "stopped"),
        trial(1, 0.0, "finished"),
        trial(2, 0.0, "finished"),
        trial(3, 1.0, "finished"),
    ]
    assert [best_of(trials, direction).number for direction in ("min", "max")] == [1, 3]  # type: ignore[union-attr]
    assert best_of(trials[:1], "min") is None


def test_the_picture_has_a_panel_per_parameter_that_varies_and_shows_dollars_as_text() -> None:
    axes = read_axes(["train.lr=loguniform(1e-4,1e-2)", "a.b=choice($x$,y)", "train.max_steps=3"])
    settings = {"name": "s", "space": [], "method": "sobol", "metric": "train.m", "direction": "min", "seed": 1}
    trials = [
        {"number": n, "params": {"train.lr": lr, "a.b": b, "train.max_steps": "3"}, "state": "finished", "value": value}
        | {"curve": [], "experiment": "", "commit": None, "seconds": 0.0, "why": ""}
        for n, (lr, b, value) in enumerate([("0.001", "$x$", 2.0), ("0.01", "y", 1.0)])
    ]
    result = SweepResult.model_validate(
        {"settings": {**settings, "stop_early": False, "head": ""}, "trials": trials, "best": 1, "folder": ""}
    )
    drawn = sweep_result.picture(result, [axis for axis in axes if axis.varies])
    assert [text in drawn for text in ("train.lr", "a.b", "train.max_steps", "$x$", "best so far")] == [
        True, True, False, True, True,
    ]  # fmt: skip


def test_a_list_of_locks_that_a_killed_dvc_cut_is_removed_unless_dvc_is_writing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lists = [Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock")]
    lists[1].parent.mkdir(parents=True)
    lists[0].write_text('{"read": {}, "write": {}}')
    lists[1].write_text('{"read": {')
    with lists[1].with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        mend_locks()
        assert lists[1].exists()
    mend_locks()
    assert [file.exists() for file in lists] == [True, False]
