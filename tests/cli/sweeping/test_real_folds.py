"""`codex-ml folds` with the real DVC, on a project whose stage is a toy: ended by a signal, killed while DVC sets up."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from .toy_project import DVC_YAML, STAGE, ToyProject, make_toy

SLOW = ("2", "-S", "train.lr=0.04")
EVALUATE = """\
pathlib.Path("reports/evaluate").mkdir(parents=True, exist_ok=True)
pathlib.Path("reports/evaluate/metrics.json").write_text(json.dumps({"fold": params["split"]["fold"]}))
"""


@pytest.fixture
def toy(tmp_path: Path) -> ToyProject:
    """The toy, whose stage writes the metrics of the evaluation too: the number of the fold."""
    project = make_toy(tmp_path)
    metric = "      - reports/evaluate/metrics.json:\n          cache: false\n"
    dvc = DVC_YAML.replace("    plots:", metric + "    plots:").replace("- train\n", "- train\n      - split\n", 1)
    (project.root / "dvc.yaml").write_text(dvc)
    (project.root / "stages/train.py").write_text(STAGE + EVALUATE)
    project.run("git", "commit", "-aqm", "an evaluation")
    return project


def finish(toy: ToyProject, *arguments: str) -> tuple[list[float], str]:
    """Run the command to its end; return the number of each fold, and what it said."""
    process = toy.start(*arguments, "--json", command="folds")
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert not toy.run("git", "status", "--porcelain")
    assert toy.run("git", "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    return json.loads(out)["metrics"]["evaluate.fold"]["values"], said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "last"),
    [
        (signal.SIGINT, "error: interrupted"),
        (signal.SIGTERM, "error: SIGTERM: the cross-validation ended; run the same command again to go on"),
    ],
)
def test_a_signal_ends_the_fold_and_the_next_run_goes_on(toy: ToyProject, number: signal.Signals, last: str) -> None:
    process = toy.start(*SLOW, command="folds", TOY_SLOW="0.03")
    while not toy.ran:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)  # to the command alone
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == last
    assert len(family) >= 2 and not [each for each in family if each.is_running()], "DVC and the stage ended"
    assert toy.log.with_name("toy.log.stopped").exists(), "the stage could save what it had"
    assert finish(toy, *SLOW)[0] == [0.0, 1.0]


@pytest.mark.slow
def test_a_dvc_killed_while_it_sets_up_a_fold_leaves_nothing_after_the_next_run(toy: ToyProject) -> None:
    params = toy.root / "params.yaml"
    committed = params.read_text()
    process = toy.start("2", command="folds")
    while params.read_text() in (committed, ""):
        assert process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True)
    for each in [process, *family]:
        each.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=60)
    assert params.read_text() != committed
    folds, said = finish(toy, "2")
    assert folds == [0.0, 1.0]
    assert "put back params.yaml, into which a killed experiment wrote its values" in said
    assert params.read_text() == committed
