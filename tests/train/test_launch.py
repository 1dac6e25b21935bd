"""How several processes of one machine are started and waited for; the whole stage: tests/pipeline/test_launch.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from codex_ml.core.errors import UserError
from codex_ml.train import launch as launch_module
from codex_ml.train.launch import PEER_LOST, launch

WAITS, FAILS, LOST = "input()", "raise SystemExit(3)", f"raise SystemExit({PEER_LOST})"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def wait(*codes: str) -> tuple[int | None, list[int]]:
    """Run programs as ranks: which failed first, and the exit codes."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)) for code in codes
        ]
        return launch_module._wait(started), [process.returncode for process in started]


@pytest.mark.parametrize(("codes", "first"), [((WAITS, FAILS), 1), ((FAILS, WAITS), 0)])
def test_a_rank_that_fails_ends_those_that_wait_for_it(monkeypatch, codes, first):
    """This holds for every rank: rank 0 may wait half an hour, torch's timeout, for a process that is dead."""
    monkeypatch.setattr(launch_module, "GRACE", 0.0)
    found, ended = wait(*codes)
    assert found == first
    assert ended == [3 if code is FAILS else -signal.SIGKILL for code in codes]


def test_the_first_failure_is_one_with_a_reason_of_its_own():
    assert wait(LOST, FAILS)[0] == 1
    assert wait(LOST, LOST)[0] == 0


def test_ranks_that_end_well_have_no_first_failure():
    assert wait("pass", "pass")[0] is None


@pytest.mark.parametrize(
    ("first", "codes", "told"),
    [
        (0, [1, 75], True),
        (0, [-9, 75], False),
        (1, [75, 1], False),
        (1, [75, -9], False),
        (1, [1, 1], True),
        (0, [75, 75], False),
    ],
)
def test_a_failure_is_told_by_who_had_it_and_once(first, codes, told):
    assert launch_module._told(first, codes) == told


def test_what_accelerate_launch_sets_beside_the_ranks_is_not_obeyed(monkeypatch):
    for name, value in {"DYNAMO_BACKEND": "INDUCTOR", "MIXED_PRECISION": "fp16", "USE_FSDP": "false"}.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    launch(1, threads=1)
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")]


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_another_way_to_train_is_refused(monkeypatch, name):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "accelerate launch sets it")
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(UserError, match=f"ACCELERATE_USE_{name} is true"):
        launch(1, threads=1)
