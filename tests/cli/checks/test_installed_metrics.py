"""`codex-ml check` warns where a metric was installed, updated or removed after the last evaluation."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.checks import installed_metrics
from codex_ml.cli.checks.installed_metrics import metrics_warning
from codex_ml.cli.main import whole_app
from codex_ml.core.hashing import hash_file
from codex_ml.core.plugin_lock import code_digest
from codex_ml.inference.evaluate_files import Evaluation, PlugIn, TaskResult

RESULT = Path("reports/evaluate/details.json")
COMMAND = "DVC does not see packages, so run `dvc repro --force --single-item evaluate`"
WORDS = PlugIn(name="words", distribution="far-words", version="1.5")


def evaluated(*plug_ins: PlugIn, notes: tuple[str, ...] = ()) -> None:
    """The files of an evaluation that used these metrics of packages."""
    task = TaskResult(task="documents", items=0, units=0, settings={}, metrics={})
    numbers = {"model": "m", "data": "d", "seed": 1, "bootstrap": 100, "confidence": 0.95, "tasks": {"documents": task}}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    Evaluation(**numbers, plug_ins=list(plug_ins), notes=list(notes)).write(RESULT)
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  evaluate:\n    cmd: python -P stages/evaluate.py\n    outs:\n"
        f"    - path: {RESULT}\n      hash: md5\n      md5: {hash_file(RESULT).md5}\n"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is empty, and packages of this folder are installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "site"


def install(site: Path, version: str = "1.5", name: str = "words") -> None:
    """Install the package far-words, as pip leaves it. Its code would raise when it is imported."""
    for old in site.glob("*.dist-info"):
        shutil.rmtree(old)
    info = site / f"far_words-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: far-words\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[codex_ml.metrics]\n{name} = far_words:Words\n")
    (site / "far_words.py").write_text("raise SystemExit\n")
    importlib.invalidate_caches()


def test_nothing_is_said_where_the_metrics_are_those_of_the_last_evaluation(site: Path) -> None:
    assert metrics_warning([]) == "", "nothing was evaluated"
    evaluated()
    assert metrics_warning([]) == ""
    install(site)
    evaluated(WORDS)
    assert metrics_warning([]) == metrics_warning(["words"]) == metrics_warning(["chrf"]) == ""
    assert "far_words" not in sys.modules


def test_a_metric_with_other_code_and_the_same_version_is_named(site: Path) -> None:
    install(site)
    evaluated(WORDS.model_copy(update={"sha256": code_digest("metrics", "words")}))
    assert len(code_digest("metrics", "words")) == 64
    assert metrics_warning([]) == ""
    (site / "far_words.py").write_text("raise SystemExit  # changed\n")
    said = f"{RESULT}: the code of metric words of far-words 1.5 is another one; {COMMAND}"
    assert metrics_warning([]) == metrics_warning(["words"]) == said
    assert metrics_warning(["chrf"]) == ""
    assert "far_words" not in sys.modules


def test_a_metric_that_was_installed_updated_or_removed_is_named_with_the_command(site: Path) -> None:
    evaluated()
    install(site)
    assert metrics_warning([]) == f"{RESULT}: metric words of far-words 1.5 is installed and was not used; {COMMAND}"
    assert metrics_warning(["chrf"]) == "", "evaluate.metrics does not name it"
    evaluated(WORDS)
    install(site, "2.0")
    assert metrics_warning([]) == (
        f"{RESULT}: metric words of far-words 2.0 is installed and was not used, metric words of far-words 1.5 was used "
        f"and is not installed; {COMMAND}"
    )
    shutil.rmtree(site)
    importlib.invalidate_caches()
    assert metrics_warning([]) == f"{RESULT}: metric words of far-words 1.5 was used and is not installed; {COMMAND}"


def test_a_metric_that_gave_no_value_or_has_the_name_of_a_built_in_one_is_not_new(site: Path) -> None:
    install(site)
    evaluated(notes=("metric words of far-words 1.5: it has no `name`",))
    assert metrics_warning([]) == ""
    evaluated(WORDS, notes=("metric words of far-words 1.5: measure failed: ValueError",))
    assert metrics_warning([]) == ""
    install(site, name="chrf")
    evaluated()
    assert metrics_warning([]) == ""


def test_a_result_that_is_not_of_the_last_run_is_not_compared(site: Path) -> None:
    install(site)
    evaluated()
    RESULT.write_text("{}")
    assert metrics_warning([]) == ""
    RESULT.unlink()
    assert metrics_warning([]) == ""
    Path("dvc.lock").write_text("<<<<<<<")
    RESULT.write_text("{}")
    assert metrics_warning([]) == ""


def test_the_command_prints_it_as_a_warning(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_metrics, "metrics_warning", lambda names: f"about {names}")
    done = CliRunner().invoke(whole_app(), ["check"])
    assert done.exit_code == 0, done.output
    assert "warning: about ()\n" in done.stderr
