"""A process that waits in C++ for a missing one ends on a signal, with one line and the exit code of the signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codex_ml.train.stop_signals import watch_signals

# Says when it is about to wait, inside the block that watches. Torch then waits for half an hour.
RENDEZVOUS = """
import signal, sys
from pathlib import Path
import torch.distributed
from codex_ml.modeling.hardware import Hardware
from codex_ml.train.scratch import run_folder

begin = torch.distributed.init_process_group
def announced(*arguments, **settings):
    print("waits", flush=True)
    begin(*arguments, **settings)
torch.distributed.init_process_group = announced
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # of Python: it never runs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
hardware = Hardware("cpu", "fp32", compile=False, threads=1, capability="")
with run_folder(Path(sys.argv[1]), {"deps": {}, "environment": {"packages": {}}}, hardware):
    print("met")
"""
# Rank 1 stands still after its second step: rank 0 waits for it in an all-reduce.
STUCK = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("training_recipe", sys.argv[2])
recipe = importlib.util.module_from_spec(spec)
sys.modules["training_recipe"] = recipe
spec.loader.exec_module(recipe)
recipe.loop.STUCK_SECONDS = 0.1
step = recipe.loop.optimizer_step
def announced(run):
    if run.step == 2:
        print("waits", flush=True)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
    return step(run)
recipe.loop.optimizer_step = announced
recipe.train(Path(sys.argv[1]), accumulation=2, micro_batch_size=1)
"""


@contextmanager
def ranks(code: str, *arguments: str, started: tuple[int, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of a run of two, after each has printed that it is about to wait."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    common["TORCHELASTIC_RUN_ID"] = "test"
    source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **common, **source, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in started
    ]  # fmt: skip
    try:
        for process in processes:
            for line in process.stdout:
                if line == "waits\n":
                    break
            else:
                raise AssertionError(process.stderr.read())
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def in_cpp(process: subprocess.Popen[str]) -> None:
    """Wait until the main thread sleeps in the kernel several times in a row: by then it has left Python."""
    asleep = 0
    while asleep < 20:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        (0, signal.SIGTERM),
        (1, signal.SIGINT),
        pytest.param(0, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_rank_alone_at_the_rendezvous_ends(tmp_path, rank, number):
    with ranks(RENDEZVOUS, str(tmp_path), started=(rank,)) as (process,):
        in_cpp(process)
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == (
        f"error: {number.name} while waiting for the other processes; run the same command again"
    )
    assert "met" not in out


def test_a_second_interrupt_ends_a_rank_whose_peer_stands_still(tmp_path):
    recipe = str(Path(__file__).with_name("recipe.py"))
    with ranks(STUCK, str(tmp_path), recipe, started=(0, 1)) as (process, _):
        in_cpp(process)
        process.send_signal(signal.SIGINT)
        in_cpp(process)
        assert process.poll() is None  # the first one asks to stop after the step
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert errors.splitlines()[-1].startswith("error: SIGINT while waiting for the other processes")


def test_signals_reach_the_inner_block_and_then_the_outer_one():
    seen = []
    came = threading.Event()

    def note(name):
        return lambda number: (seen.append((name, number)), came.set())

    def send():
        came.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        came.wait()

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    threads = threading.active_count()
    try:
        with watch_signals(note("outer")):
            with watch_signals(note("inner")):
                send()
            send()
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [("inner", signal.SIGTERM), ("outer", signal.SIGTERM)]
    assert threading.active_count() == threads
