"""`codex-ml folds`: what it runs, what it refuses, and the table; tests/pipeline/test_folds.py runs it for real."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli import cross_validation
from codex_ml.cli.cross_validation import Fold, clean_head, finished, metrics_of, spread
from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.core.errors import CheckFailed, UserError

from ..json_schema_checker import problems

PARAMS = "split: {{folds: {folds}, fold: {fold}}}\n"


def git(*words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / ".gitignore").write_text("/logs/\n")
    (tmp_path / "src/codex_ml").mkdir(parents=True)
    commit(0, 0, 1.0)
    return tmp_path


def commit(folds: int, fold: int, loss: float) -> str:
    """Commit params.yaml and metrics.json as an experiment has them; return the commit."""
    Path("params.yaml").write_text(PARAMS.format(folds=folds, fold=fold))
    for stage, numbers in (
        ("train", {"val": {"loss": loss}, "best_step": 4, "step": 5}),
        ("evaluate", {"bits_per_byte": loss / 2, "lossy": None, "ok": True}),
    ):
        Path(f"reports/{stage}").mkdir(parents=True, exist_ok=True)
        Path(f"reports/{stage}/metrics.json").write_text(json.dumps(numbers))
    git("add", ".")
    git("commit", "--quiet", "--allow-empty", "-m", f"{folds} {fold}")
    return git("rev-parse", "HEAD")


def make_experiment(fold: Fold, folds: int, number: int, loss: float) -> None:
    """The Git reference that DVC writes for an experiment."""
    head = git("rev-parse", "HEAD")
    experiment = commit(folds, number, loss)
    git("reset", "--quiet", "--hard", head)
    git("update-ref", fold.reference(head), experiment)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(whole_app(), ["folds", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_mean_and_deviation_of_each_metric_over_the_folds() -> None:
    table = spread([{"a": 1.0, "b": 2.0}, {"a": 2.0}, {"a": 6.0, "b": 2.0}])
    assert table["a"].mean == 3.0
    assert table["a"].deviation == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert (table["a"].low, table["a"].high) == (1.0, 6.0)
    assert (table["b"].values, table["b"].mean, table["b"].deviation) == ([2.0, None, 2.0], 2.0, 0.0)
    assert spread([{"a": 1.0}])["a"].deviation is None


def test_other_parameters_give_another_experiment() -> None:
    names = {Fold(1, 5, changes).name for changes in ((), ("train.lr=1e-3",), ("train.lr=2e-3",))}
    assert len(names) == 3
    assert "folds-5-1" in names
    assert Fold(1, 5, ("train.lr=1e-3",)).command[-6:] == [
        "-S", "++split.folds=5", "-S", "++split.fold=1", "-S", "train.lr=1e-3",
    ]  # fmt: skip
    assert Fold(1, 5, ("train.lr=1e-3", "++model.layers=2")).params == {
        "split.folds": "5", "split.fold": "1", "train.lr": "1e-3", "model.layers": "2",
    }  # fmt: skip


def test_a_finished_fold_is_not_run_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, loss in ((0, 4.0), (1, 5.0)):
        make_experiment(Fold(number, 2, ()), 2, number, loss)
    monkeypatch.setattr(cross_validation, "run_fold", None)  # a call would fail
    code, out, err = run("2", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert problems(said, output_schema("folds")) == []
    assert said["experiments"] == ["folds-2-0", "folds-2-1"]
    assert list(said["metrics"]) == ["evaluate.bits_per_byte", "train.val.loss"]  # not steps, texts or booleans
    assert said["metrics"]["train.val.loss"]["mean"] == 4.5
    code, out, err = run("2")
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["train.val.loss", "4.5", "0.707107", "4", "5"]
    assert err.count("done before") == 2


def test_a_fold_of_another_commit_or_of_other_parameters_does_not_count(repository: Path) -> None:
    fold = Fold(0, 2, ())
    make_experiment(fold, 2, 0, 4.0)
    assert finished(fold, clean_head())
    assert finished(Fold(0, 2, ("train.lr=1e-3",)), clean_head()) is None
    commit(0, 0, 1.0)
    assert finished(fold, clean_head()) is None


def test_an_experiment_of_that_name_with_other_parameters_is_refused(repository: Path) -> None:
    fold = Fold(0, 2, ())
    make_experiment(fold, 3, 0, 4.0)
    with pytest.raises(UserError, match=r"folds-2-0 is not fold 0 of 2; `dvc exp remove folds-2-0`"):
        finished(fold, clean_head())


def test_changed_files_are_refused_because_all_folds_must_see_the_same(repository: Path) -> None:
    Path("untracked.txt").write_text("x")
    clean_head()
    Path("params.yaml").write_text(PARAMS.format(folds=3, fold=0))
    with pytest.raises(UserError, match=r"1 tracked files differ from the commit, such as params\.yaml; commit"):
        clean_head()


def test_a_folder_without_a_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    with pytest.raises(UserError, match="no commit yet"):
        clean_head()


def test_an_experiment_without_metrics_is_a_failed_check(repository: Path) -> None:
    git("rm", "--quiet", "reports/evaluate/metrics.json")
    git("commit", "--quiet", "-m", "without")
    with pytest.raises(CheckFailed, match=r"has no reports/evaluate/metrics\.json"):
        metrics_of("HEAD")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "split.folds is 0: say how many folds"),
        (("1",), "1 folds: expected 2 to 1000"),
        (("2", "-S", "train.lr"), "-S train.lr: expected key=value"),
        (("2", "-S", "=3"), "-S =3: expected key=value"),
        (("2", "-S", "split.fold=1"), "the command sets split.fold itself"),
        (("2", "-S", "+split.folds=7"), "the command sets split.folds itself"),
        (("2", "-S", "runtime.workers=2"), "a key of runtime changes no result"),
    ],
)
def test_bad_arguments_give_one_line(repository: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert not out
    assert message in err
    assert err.count("\n") == 1
