"""Kill any stage at any moment, run again: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workspace import AWKWARD, Finished, Workspace

from codex_ml.core.hashing import hash_path
from codex_ml.core.lock import last_holder
from codex_ml.core.pipeline import load_pipeline

NAMES = ["fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report"]

WITH_TORCH = ("train", "evaluate", "safety_audit")  # all write through core/io.py; see tests/core/test_disk_errors.py


def outputs(workspace: Workspace, stage: str) -> dict[str, str]:
    spec = load_pipeline(workspace.root / "dvc.yaml")[stage]
    return {out: hash_path(workspace.root / out).md5 for out in spec.outs if (workspace.root / out).exists()}


def leftovers(workspace: Workspace) -> list[Path]:
    folders = (workspace.root / name for name in ("data", "models", "reports"))
    return [path for folder in folders for path in folder.rglob(".*.tmp-*")]


def run_stage(workspace: Workspace, stage: str, **extra: str) -> subprocess.CompletedProcess[str]:
    faulty = Workspace(workspace.root, workspace.wheels, {**workspace.extra, **extra}, workspace.measured)
    return faulty.run("python", f"stages/{stage}.py", check=False)


@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("evaluate", "safety_audit") else name for name in NAMES],
)
def test_killed_stage_ends_with_the_same_bytes(pipeline: Workspace, stage: str) -> None:
    """kill -9 at a rename chosen by a seed; then undisturbed, by the script alone."""
    expected = outputs(pipeline, stage)
    where = str(random.Random(stage).randint(1, 2))
    shutil.rmtree(pipeline.root / ".cache", ignore_errors=True)

    killed = run_stage(pipeline, stage, CODEX_TEST_FAULT=f"kill os.rename {where}")
    assert killed.returncode == -signal.SIGKILL
    after_kill = outputs(pipeline, stage)
    assert all(after_kill[out] == expected[out] for out in after_kill)  # whole or absent, never half

    pipeline.measured = True
    done = run_stage(pipeline, stage)
    assert done.returncode == 0
    assert f"{stage}: done in" in done.stderr
    assert outputs(pipeline, stage) == expected
    assert leftovers(pipeline) == []


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=pytest.mark.slow) if name in WITH_TORCH else name for name in NAMES]
)
def test_a_stage_on_a_full_disk_says_so_in_one_line_and_leaves_nothing(pipeline: Workspace, stage: str) -> None:
    shutil.rmtree(pipeline.root / ".cache", ignore_errors=True)
    failed = run_stage(pipeline, stage, CODEX_TEST_FAULT="ENOSPC os.rename 1")
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("error: the disk is full")
    assert "Traceback" not in failed.stderr
    assert leftovers(pipeline) == []


def _train_process(workspace: Workspace) -> int:
    number = last_holder(workspace.root / ".cache/locks/train")
    assert number is not None
    return number


def _checkpoints(workspace: Workspace) -> list[str]:
    return sorted(
        path.name for path in workspace.root.glob(".cache/train/*/step-*") if (path / "manifest.json").exists()
    )


def _wait(condition: object, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, f"ended early:\n{process.communicate()}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def _start(workspace: Workspace, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_killed_resumes_and_ends_with_the_same_bytes(pipeline: Workspace, times: int) -> None:
    lock = pipeline.lock
    dice = random.Random(7)
    reached = 0
    for _ in range(times):
        process = _start(pipeline, "-m", "dvc", "repro", "--force", "--single-item", "train")
        reached += dice.randint(1, 4)
        wanted = f"step-{3 * reached:08d}"
        _wait(lambda wanted=wanted: any(name >= wanted for name in _checkpoints(pipeline)), process)
        os.kill(_train_process(pipeline), signal.SIGKILL)
        assert process.wait() != 0
        reached = int(_checkpoints(pipeline)[-1].removeprefix("step-")) // 3
        process.communicate()
    last = pipeline.dvc("repro", "--force", "--single-item", "train")
    assert f"train: resumed from the checkpoint of step {3 * reached} of 60" in last.stderr
    assert pipeline.lock == lock
    assert pipeline.run("git", "status", "--porcelain").stdout == ""


def test_a_recipe_that_ran_before_is_restored_after_a_kill_and_not_trained_again(pipeline: Workspace) -> None:
    """DVC deletes the outputs before it runs a stage; its run cache brings back those of the first run, all of them."""
    expected, lock = {stage: outputs(pipeline, stage) for stage in NAMES}, pipeline.lock
    process = _start(pipeline, "-m", "dvc", "repro", "--force", "--single-item", "train")
    _wait(lambda: _checkpoints(pipeline), process)
    os.killpg(process.pid, signal.SIGKILL)  # DVC, and the stage with it
    process.communicate()
    assert outputs(pipeline, "train").keys() < expected["train"].keys()
    again = pipeline.dvc("repro").stdout
    assert "Running stage" not in again
    assert "Stage 'train' is cached - skipping run, checking out outputs" in again
    assert {stage: outputs(pipeline, stage) for stage in NAMES} == expected
    assert pipeline.lock == lock
    assert pipeline.run("git", "status", "--porcelain").stdout == ""
    assert "links hold" in pipeline.cli("verify").stdout


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), pytest.param((signal.SIGTERM, signal.SIGINT), marks=pytest.mark.slow)],
    ids=["once", "twice"],
)
def test_asked_to_stop_training_saves_says_so_and_resumes(
    pipeline: Workspace, signals: tuple[signal.Signals, ...]
) -> None:
    expected = outputs(pipeline, "train")
    reached: list[str] = []
    for number in signals:
        process = _start(pipeline, "stages/train.py")
        _wait(lambda reached=reached: _checkpoints(pipeline)[-1:] > reached, process)
        os.kill(process.pid, number)
        _, errors = process.communicate()
        assert process.returncode == 1
        if reached:
            assert f"resumed from the checkpoint of step {_step(reached[0])} of 60" in errors
        reached = _checkpoints(pipeline)[-1:]
        assert f"error: {number.name}: saved the checkpoint of step {_step(reached[0])} of 60; " in errors
    resumed = run_stage(pipeline, "train")
    assert f"resumed from the checkpoint of step {_step(reached[0])} of 60" in resumed.stderr
    assert outputs(pipeline, "train") == expected


def _step(checkpoint: str) -> int:
    return int(checkpoint.removeprefix("step-"))


def test_two_trainings_at_once_the_second_is_told_who_runs(pipeline: Workspace) -> None:
    process = _start(pipeline, "stages/train.py")
    _wait(lambda: _checkpoints(pipeline), process)
    os.kill(process.pid, signal.SIGSTOP)  # it must not be through before the second one asks
    second = run_stage(pipeline, "train")
    os.kill(process.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert f"train is already running in this folder, in process {process.pid} on " in second.stderr
    assert process.wait() == 0
    process.communicate()


@pytest.mark.slow
def test_lock_of_a_dead_process_is_free(pipeline: Workspace) -> None:
    process = _start(pipeline, "stages/train.py")
    _wait(lambda: _checkpoints(pipeline), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run_stage(pipeline, "train").returncode == 0


def test_file_size_limit_gives_one_line_and_keeps_the_old_output(pipeline: Workspace) -> None:
    expected = outputs(pipeline, "split")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = pipeline.run("python", "stages/split.py", check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: a file would grow beyond the size limit")
    assert outputs(pipeline, "split") == expected


def test_a_really_full_disk_gives_one_line(pipeline: Workspace, tmp_path: Path) -> None:
    """A small file system in a user namespace; where those are off, the limit on file sizes above is the test."""
    inputs = tmp_path / "inputs"
    shutil.copytree(pipeline.root / "data", inputs, ignore=shutil.ignore_patterns("raw", "splits", "packed"))
    room = 64 + sum(file.stat().st_size for file in inputs.rglob("*") if file.is_file()) // 1024
    script = f'mount -t tmpfs -o size={room}k none data && cp -r "{inputs}/." data/ && exec "{sys.executable}" stages/split.py'
    done = pipeline.run("unshare", "-Urm", "sh", "-c", script, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no user namespaces here; test_file_size_limit_gives_one_line_and_keeps_the_old_output stands in")
    assert done.returncode == 1, done.stderr
    assert "error: the disk is full" in done.stderr


@pytest.mark.slow
def test_compiled_training_in_an_awkward_folder_resumes_with_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    """torch.compile with cold caches each time, under a path that a shell would have to quote."""
    workspace = finished.workspace.copy(tmp_path / AWKWARD)
    workspace.edit("params.yaml", "  threads: 1\n", '  threads: 1\n  compile: "on"\n')
    assert run_stage(workspace, "train").returncode == 0
    expected = outputs(workspace, "train")
    process = _start(workspace, "stages/train.py")
    _wait(lambda: _checkpoints(workspace), process, 300)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert "resumed from the checkpoint" in run_stage(workspace, "train").stderr
    assert outputs(workspace, "train") == expected
