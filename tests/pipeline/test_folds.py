"""`codex-ml folds` with the real DVC: every fold is an experiment, and a killed command goes on where it stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil
import pytest
from workspace import Workspace

MAIN = "import sys; sys.path.insert(0, 'src'); from codex_ml.cli.main import main; main()"
STEPS = ("-S", "train.max_steps=12")


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_and_gives_a_table(pipeline: Workspace) -> None:
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        pipeline.run("git", "config", name, value)
    lock = pipeline.lock
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "folds", "2", *STEPS],
        cwd=pipeline.root,
        env=pipeline.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("fold 1 of 2: experiment"):
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL, "".join(said)
    done = pipeline.cli("folds", "2", *STEPS, "--json")
    assert "fold 0 of 2: done before" in done.stderr
    assert "fold 1 of 2: experiment" in done.stderr
    table = json.loads(done.stdout)
    again = pipeline.cli("folds", "2", *STEPS, "--json")
    assert json.loads(again.stdout) == table
    assert again.stderr.count("done before") == 2
    losses = table["metrics"]["train.best_val_loss"]["values"]
    assert losses[0] != losses[1], "another fold is another validation set"
    for name, loss in zip(table["experiments"], losses, strict=True):
        shown = pipeline.run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}").stdout.strip()
        metrics = json.loads(pipeline.run("git", "show", f"{shown}:reports/train/metrics.json").stdout)
        assert metrics["best_val_loss"] == loss
    assert pipeline.lock == lock, "the workspace stays as it is"
    assert not pipeline.run("git", "status", "--porcelain").stdout
