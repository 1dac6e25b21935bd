"""One process at a time holds a lock, even if it is killed; the others report for whom they wait."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from codex_ml.core import lock as module
from codex_ml.core.errors import CheckFailed
from codex_ml.core.lock import ProcessLock, one_at_a_time, only_one

SCRIPT = """
import logging, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from codex_ml.core.errors import one_line_errors
from codex_ml.core.lock import one_at_a_time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a shell that ignores it would ignore it too
logging.basicConfig(level="INFO", format="%(message)s")
with one_line_errors(), one_at_a_time(Path(sys.argv[2]), "fetch", "uses the same store"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def process(lock: Path, **own: str) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lock, says so, and holds it until it gets a line; one that waits says that instead."""
    source = str(Path(module.__file__).parents[2])
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", SCRIPT, source, str(lock)]
    with subprocess.Popen(command, env={**os.environ, **own}, text=True, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def holding(lock: Path, **own: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock."""
    with process(lock, **own) as started:
        assert started.stdout.readline() == "mine\n"
        yield started


def test_a_second_process_waits_and_says_for_whom(tmp_path):
    lock = tmp_path / "new/a.lock"
    with holding(lock, DVC_EXP_NAME="puffy-cats") as first, process(lock) as second:
        line = second.stderr.readline()
        assert line.startswith(f"fetch: process {first.pid} on ")
        assert line.endswith("(experiment puffy-cats) uses the same store; waiting until it ends\n")
        first.stdin.write("\n")
        first.stdin.close()
        assert second.stdout.readline() == "mine\n"
        assert second.stderr.readline().startswith("fetch: waited ")
        assert first.wait() == 0
        assert first.stderr.read() == ""


def test_a_killed_process_gives_its_turn_to_the_next(tmp_path):
    with holding(tmp_path / "a.lock") as first, process(tmp_path / "a.lock") as second:
        assert "waiting until it ends" in second.stderr.readline()
        first.send_signal(signal.SIGKILL)
        assert second.stdout.readline() == "mine\n"
        with closing(ProcessLock(tmp_path / "a.lock", "fetch", "works")) as third:
            assert not third.try_acquire()
            assert f"process {second.pid} on " in third.holder()


def test_ctrl_c_ends_the_wait_with_one_line_and_leaves_the_first_alone(tmp_path):
    with holding(tmp_path / "a.lock") as first, process(tmp_path / "a.lock") as second:
        assert "waiting until it ends" in second.stderr.readline()
        second.send_signal(signal.SIGINT)
        assert second.communicate() == ("", "error: interrupted\n")
        assert second.returncode == 130
        with closing(ProcessLock(tmp_path / "a.lock", "fetch", "works")) as third:
            assert not third.try_acquire()
        assert first.communicate("\n")[1] == ""
        assert first.returncode == 0


def test_who_ends_sees_whether_others_wait(tmp_path):
    first, second, third = (ProcessLock(tmp_path / "a.lock", "train", "works") for _ in range(3))
    assert first.try_acquire()
    with first.nobody_waits() as alone:
        assert alone
        assert not second.try_acquire()  # it came in this moment: it has no place in the queue yet
    with first.nobody_waits() as alone:
        assert alone
    assert not second.try_acquire()
    assert not third.try_acquire()
    with first.nobody_waits() as alone:
        assert not alone
    first.close()
    assert second.try_acquire()
    with second.nobody_waits() as alone:
        assert not alone  # the third one still waits
    third.close()
    with second.nobody_waits() as alone:
        assert alone
    second.close()


def test_the_wait_is_reported_now_and_then_with_the_state_of_the_other(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="codex_ml")
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 16))
    states = iter(["step 7", "step 9"])
    first = ProcessLock(tmp_path / "a.lock", "train", "works")
    second = ProcessLock(tmp_path / "a.lock", "train", "trains the same recipe", state=lambda: next(states))
    assert first.try_acquire()
    for _ in range(5):
        assert not second.try_acquire()
        second.wait()
    first.close()
    assert second.try_acquire()
    second.close()
    holder = f"process {os.getpid()} on {module.socket.gethostname()} ({Path.cwd()})"
    assert caplog.messages == [
        f"train: {holder} trains the same recipe; waiting until it ends",
        f"train: still waiting for {holder}, 32 s so far; step 7",
        f"train: still waiting for {holder}, 1 min 4 s so far; step 9",
        "train: waited 1 min 20 s for another process; continuing from what it left",
    ]


def test_a_failure_gives_the_turn_back(tmp_path):
    with pytest.raises(ZeroDivisionError), one_at_a_time(tmp_path / "a.lock", "fetch", "works"):
        raise ZeroDivisionError
    with one_at_a_time(tmp_path / "a.lock", "fetch", "works"):
        pass


def test_a_second_process_is_refused_where_it_must_not_wait(tmp_path):
    holder = f"process {os.getpid()} on {module.socket.gethostname()} ({Path.cwd()})"
    with only_one(tmp_path / "train", "train"):
        with only_one(tmp_path / "split", "split"):
            pass
        with (
            pytest.raises(
                CheckFailed,
                match=rf"^train is already running in this folder, in {re.escape(holder)}; wait until it ends$",
            ),
            only_one(tmp_path / "train", "train"),
        ):
            pass
    with only_one(tmp_path / "train", "train"):
        assert (tmp_path / "train").read_text() == holder


def test_the_lock_file_of_a_dead_process_blocks_no_one(tmp_path):
    (tmp_path / "train").write_text("process 999999999")
    with only_one(tmp_path / "train", "train"), (tmp_path / "train").open() as handle, pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
