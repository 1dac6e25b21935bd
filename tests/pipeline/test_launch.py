"""The train stage in several processes: started by itself, or by torchrun from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from workspace import Workspace

READ = "    from safetensors.torch import load_file\n"
# The second process reads late: the first must not have removed the checkpoints by then.
SLOW = """\
    import os, time
    end = time.monotonic() + 2 * (os.environ.get("RANK") == "1")
    while file.exists() and time.monotonic() < end:
        time.sleep(0.01)
"""


@pytest.fixture
def two(pipeline: Workspace) -> Workspace:
    """The finished workspace, set to train in two processes."""
    pipeline.edit("params.yaml", "runtime: {device: cpu}", "runtime: {device: cpu, processes: 2}")
    return pipeline


def start(workspace: Workspace, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *(command or ("stages/train.py",))], cwd=workspace.root, env=workspace.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(process: subprocess.Popen[str]) -> list[int]:
    """The ranks of a run, once all have started."""
    while process.poll() is None:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if len(found) == 2:
            return [int(pid) for pid in found]
        time.sleep(0.01)
    raise AssertionError(process.stderr.read())


def checkpoints(workspace: Workspace) -> list[str]:
    return sorted(file.parent.name for file in (workspace.root / ".cache/train").glob("*/step-*/manifest.json"))


def wait_for_checkpoint(workspace: Workspace, process: subprocess.Popen[str], after: str = "") -> None:
    while process.poll() is None:
        if [name for name in checkpoints(workspace) if name > after]:
            return
        time.sleep(0.01)
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_to_rounding(pipeline: Workspace) -> None:
    """Both rates are 3e-3 at this width: rounding grows with the rates, and the shipped ones are for better losses."""
    two, weights = pipeline, pipeline.root / "models/model/model.safetensors"
    two.edit("params.yaml", "  lr: 3e-3\n", "  lr: 4.33e-4\n  embedding_lr: 4.33e-4\n")
    two.edit("params.yaml", "canaries: {each: [8, 2, 2]}", "canaries: {plant: never}")
    two.run("python", "stages/pack.py")
    two.run("python", "stages/train.py")
    one = load_file(weights)
    two.edit("params.yaml", "runtime: {device: cpu}", "runtime: {device: cpu, processes: 2}")
    two.edit("src/codex_ml/train/checkpoint.py", READ, SLOW + READ)
    done = two.run("python", "stages/train.py")
    both = load_file(weights)
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=0, atol=2e-3)
    assert json.loads((two.root / "models/model/training.json").read_text())["processes"] == [2]
    assert done.stderr.count("train: kept the weights of step") == 1  # one of them speaks


def test_a_killed_rank_ends_the_run(two: Workspace) -> None:
    run = start(two)
    ranks = children(run)
    wait_for_checkpoint(two, run)
    os.kill(ranks[1], signal.SIGKILL)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 1
    assert errors.splitlines()[-1].startswith(
        "error: process 1 was ended by SIGKILL; run the same command to go on from the last checkpoint; if memory ran "
        "out, lower train.micro_batch_size "
    )
    assert "Traceback" not in errors


@pytest.mark.slow
def test_after_a_killed_rank_the_next_run_goes_on_until_sigterm_reaches_all(two: Workspace) -> None:
    """At SIGTERM all save after the same step."""
    run = start(two)
    ranks = children(run)
    wait_for_checkpoint(two, run)
    os.kill(ranks[1], signal.SIGKILL)
    run.communicate(timeout=120)
    last = checkpoints(two)[-1]
    run = start(two)
    wait_for_checkpoint(two, run, last)
    run.terminate()
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 1
    assert f"train: resumed from the checkpoint of step {int(last.removeprefix('step-'))} of 60" in errors
    assert errors.count("SIGTERM: saved the checkpoint of step") == 1
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_rank_that_dies_before_the_others_know_it_ends_the_run(two: Workspace) -> None:
    """Rank 0 waits for it at the rendezvous, and nobody closes a connection there."""
    two.edit("src/codex_ml/train/launch.py", "GRACE = 30.0", "GRACE = 1.0")
    run = start(two)
    os.kill(children(run)[1], signal.SIGKILL)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 1
    assert errors.splitlines()[-1].startswith("error: process 1 was ended by SIGKILL")


@pytest.mark.slow
def test_death_of_the_launcher_ends_all(two: Workspace) -> None:
    run = start(two)
    ranks = children(run)
    wait_for_checkpoint(two, run)
    run.kill()
    run.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):  # else the test hangs
        time.sleep(0.01)


@pytest.mark.slow
def test_a_mistake_that_the_ranks_find_is_told_once(two: Workspace) -> None:
    two.edit("params.yaml", "  threads: 1", "  threads: 1\n  resume_from: models/base/nothing")
    done = two.run("python", "stages/train.py", check=False)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "error" in line] == [
        "error: train.resume_from: models/base/nothing/last is not a complete checkpoint "
        "(models/base/nothing/last/manifest.json is missing); name a copy of models/checkpoints"
    ]


def test_a_number_of_processes_that_cannot_share_a_step_is_refused(two: Workspace) -> None:
    two.edit("params.yaml", "processes: 2", "processes: 3")
    done = two.run("python", "stages/train.py", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: params.yaml:30: runtime.processes 3 cannot share the 4 x 2 rows of a step evenly; choose a divisor of "
        "micro_batch_size x accumulation\n",
    )


@pytest.mark.slow
def test_torchrun_from_outside_and_dvc_as_docs_say(pipeline: Workspace, repository: Path) -> None:
    lines = (repository / "docs/distributed.md").read_text(encoding="utf-8").splitlines()
    torchrun = next(line for line in lines if line.startswith("torchrun --standalone"))
    commit = next(line for line in lines if line.startswith("dvc commit"))
    words = ["-m", "torch.distributed.run", *torchrun.replace("8", "2").split()[1:]]
    run = start(pipeline, *words)
    errors = run.communicate(timeout=240)[1]
    assert run.returncode == 0, errors
    assert json.loads((pipeline.root / "models/model/training.json").read_text())["processes"] == [2]
    pipeline.dvc(*commit.split()[1:])
    assert "train:" not in pipeline.dvc("status").stdout
