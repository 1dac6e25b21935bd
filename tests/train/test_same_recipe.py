"""Two runs of one recipe at once: the second waits, then takes the result or continues from the last checkpoint."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from codex_ml.train.checkpoint import export_newest

pytestmark = pytest.mark.costly
Process = subprocess.Popen[str]
# A run in the shared folder `scratch`; its weights and curves go to its own folder. It prints the number of each step
# before it does it, and stops there until it gets a line when that is the step `pause`.
SCRIPT = """
import importlib.util, logging, os, shutil, signal, sys
from pathlib import Path
source, own, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
from codex_ml.core.errors import one_line_errors
from codex_ml.modeling.hardware import Hardware
from codex_ml.train.launch import among_others
from codex_ml.train.scratch import run_folder
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig(format="%(message)s")
logging.getLogger("codex_ml").setLevel("INFO")
def load():
    spec = importlib.util.spec_from_file_location("training_recipe", source)
    recipe = importlib.util.module_from_spec(spec)
    sys.modules["training_recipe"] = recipe
    spec.loader.exec_module(recipe)
    import torch
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    step = recipe.loop.optimizer_step
    def watched(run):
        print(run.step, flush=True)
        if run.step == pause:
            sys.stdin.readline()
        return step(run)
    recipe.loop.optimizer_step = watched
    return recipe
record = {"seed": 1, "deps": {}, "environment": {"packages": {}}}
hardware = Hardware("cpu", "fp32", compile=False, threads=1, capability="test")
with one_line_errors(), among_others(), run_folder(Path("scratch"), record, hardware) as scratch:
    from codex_ml.train.checkpoint import export_newest
    recipe = load()  # who only waits imports no torch
    assert hardware == recipe.HARDWARE
    recipe.seed_everything()
    recipe.train(own, scratch=scratch, max_steps=6, checkpoint_every=1)
    if not int(os.environ.get("RANK", "0")):
        export_newest(scratch, own / "last")
print("done", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a run: its name, the step before which it waits for a line, and variables of its environment."""
    with ExitStack() as stack:

        def start(name: str, *, pause: int = -1, **own: str) -> Process:
            (tmp_path / name).mkdir(exist_ok=True)
            source = Path(__file__).parents[2] / "src"
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("recipe.py")), name, str(pause)],
                    env={**os.environ, "PYTHONPATH": str(source), **own}, cwd=tmp_path, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            return process

        yield start


def until(stream: Iterator[str], text: str) -> str:
    """Read lines until one has the text."""
    return next(line for line in stream if text in line)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The exported checkpoint and the curves."""
    files = [file for name in ("last", "curves") for file in (folder / name).rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def assert_nothing_left(tmp_path: Path) -> None:
    assert {path.suffix for path in (tmp_path / "scratch").iterdir()} == {".lock", ".queue"}


@pytest.mark.usefixtures("one_thread")
def test_the_second_goes_on_where_the_first_was_killed_and_the_third_takes_its_result(recipe, start, tmp_path):
    first = start("first", pause=3)
    until(first.stdout, "3")
    second = start("second", pause=5)
    assert until(second.stderr, "waiting until it ends").startswith(f"train: process {first.pid} on ")
    first.kill()
    assert until(second.stdout, "") == "3\n"
    until(second.stdout, "5")
    third = start("third")
    assert until(third.stderr, "waiting until it ends").startswith(f"train: process {second.pid} on ")
    assert second.communicate("\n")[0].split() == ["done"]
    assert third.communicate()[0].split() == ["done"]
    assert_nothing_left(tmp_path)

    (tmp_path / "alone").mkdir()
    recipe.seed_everything()
    recipe.train(tmp_path / "alone", max_steps=6, checkpoint_every=1)
    export_newest(tmp_path / "alone/scratch", tmp_path / "alone/last")
    alone = bytes_of(tmp_path / "alone")
    assert bytes_of(tmp_path / "second") == alone
    assert bytes_of(tmp_path / "third") == alone


def test_ctrl_c_while_waiting_ends_only_that_run(start, tmp_path):
    first = start("first", pause=2)
    until(first.stdout, "2")
    second = start("second")
    until(second.stderr, "waiting until it ends")
    second.send_signal(signal.SIGINT)
    assert second.communicate() == ("", "error: interrupted\n")
    assert second.returncode == 130
    assert first.communicate("\n")[0].split() == [*"345", "done"]
    assert_nothing_left(tmp_path)


def ranks(start: Callable[..., Process], name: str) -> list[Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    return [start(name, RANK=rank, LOCAL_RANK=rank, **common) for rank in "01"]


@pytest.mark.slow
def test_all_processes_of_a_run_wait_and_go_on_together(start, tmp_path):
    first = start("first", pause=4)
    until(first.stdout, "4")
    group = ranks(start, "group")
    until(group[0].stderr, "waiting until it ends")
    first.kill()
    for process in group:
        assert process.communicate()[0].split() == ["4", "5", "done"]
    assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_a_signal_ends_all_processes_that_wait(start, tmp_path):
    first = start("first", pause=4)
    until(first.stdout, "4")
    group = ranks(start, "group")
    until(group[0].stderr, "waiting until it ends")
    for process in group:
        process.send_signal(signal.SIGINT)
    for process in group:
        assert process.communicate()[0] == ""
        assert process.returncode == 130
    assert first.communicate("\n")[0].split() == ["5", "done"]
    assert_nothing_left(tmp_path)
