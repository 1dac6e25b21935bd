"""`codex-ml sweep` over the real pipeline: the trials are experiments, and the workspace stays as it is."""

from __future__ import annotations

import json

import pytest
from workspace import Workspace


@pytest.mark.slow
def test_a_sweep_ranks_real_trials(pipeline: Workspace) -> None:
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        pipeline.run("git", "config", name, value)
    lock = pipeline.lock
    settings = ("--set", "train.lr=choice(1e-7,3e-3)", "--set", "train.max_steps=12", "--method", "grid", "--name", "s")
    done = pipeline.cli("sweep", *settings, "--json")
    found = json.loads(done.stdout)
    trials = found["trials"]
    assert [trial["state"] for trial in trials] == ["finished", "finished"], done.stderr
    for trial in trials:
        metrics = json.loads(pipeline.run("git", "show", f"{trial['commit']}:reports/train/metrics.json").stdout)
        assert metrics["best_val_loss"] == trial["value"]
        assert [step for step, _ in trial["curve"]] == [12]
    assert trials[1]["value"] < trials[0]["value"], "a rate of 1e-7 learns nothing"
    assert found["best"] == 1
    assert pipeline.lock == lock
    assert not pipeline.run("git", "status", "--porcelain").stdout
    again = pipeline.cli("sweep", *settings, "--json")
    assert json.loads(again.stdout) == found
