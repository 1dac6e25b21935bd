"""Work on all cores gives the results of one core, in the order of the tasks, and leaves no process behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_ml.core import parallel
from codex_ml.core.parallel import SMALL, ordered_map, workers_for

WORK = """
import functools, os, pathlib, signal, sys, time
from codex_ml.core import parallel
from codex_ml.core.errors import CheckFailed, UserError

ordered_map = functools.partial(parallel.ordered_map, folder=pathlib.Path())

def square(number):
    time.sleep(0.02 * (number % 3 == 0))
    return number * number

def pid(_):
    time.sleep(0.05)
    return os.getpid()

def fail(number):
    if number == 5:
        raise UserError("the fifth task is wrong")
    return number

def reverse(data):
    return data[::-1]

def connect(number):
    import socket
    socket.socket().connect(("192.0.2.1", number))

def load(number):
    pathlib.Path("elsewhere").mkdir(exist_ok=True)
    pathlib.Path("elsewhere/planted.py").write_text("")
    sys.path.append("elsewhere")
    import planted
    return number

def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
"""


@pytest.fixture
def script(tmp_path, run_python):
    """Run code in a file of its own: spawned workers import their function from it."""

    def run(code):
        (tmp_path / "work.py").write_text(WORK)
        body = "".join(f"    {line}\n" for line in code.strip().splitlines())
        (tmp_path / "main.py").write_text(f"from work import *\nif __name__ == '__main__':\n{body}")
        return run_python("main.py", cwd=tmp_path)

    return run


def test_the_workers_of_a_stage_have_its_guard_and_load_recorded_code_only(script):
    done = script("""
from codex_ml.core import loaded_code
from codex_ml.core.network_guard import refuse_network
from codex_ml.core.pipeline import StageSpec
spec = StageSpec("ingest", "", "", ("main.py", "work.py", "src"), (), (), frozenset())
loaded_code.watch(spec, guard=refuse_network)
print(list(ordered_map(square, [3], workers=1)))
for work in (connect, load):
    try:
        print(list(ordered_map(work, [1], workers=1)))
    except CheckFailed as error:
        print(error)
loaded_code.allow_code([pathlib.Path("elsewhere")])
print(list(ordered_map(load, [1], workers=1)))
""")
    assert done.stdout.splitlines() == [
        "[(3, 9)]",
        "this run tried to reach '192.0.2.1'; only fetch may use the network",
        "ingest imported planted from elsewhere/planted.py: add its folder to the stage's deps in dvc.yaml, or remove the file",
        "[(1, 1)]",
    ], done.stderr


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_end(pids):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


def test_without_workers_everything_happens_here_and_only_when_asked(tmp_path):
    def here(function, tasks):
        return ordered_map(function, tasks, workers=0, folder=tmp_path)

    drawn = []
    results = here(lambda n: n * n, (drawn.append(n) or n for n in itertools.count()))
    assert list(itertools.islice(results, 4)) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert drawn == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        list(here(lambda n: 1 / n, [1, 0]))
    assert list(here(abs, [])) == []


def test_results_come_in_the_order_of_the_tasks(script):
    run = script("""
tasks = list(range(40))
assert list(ordered_map(square, iter(tasks), workers=2)) == list(ordered_map(square, tasks, workers=0))
assert list(ordered_map(square, [], workers=2)) == []
assert os.getpid() not in {result for _, result in ordered_map(pid, range(4), workers=2)}
""")
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_a_task_stays_what_it_is(script, workers):
    run = script(f"""
done = []
try:
    done.extend(ordered_map(fail, range(100), workers={workers}))
except UserError as error:
    print(type(error).__name__, error, len(done))
got = []
try:
    for task, result in ordered_map(fail, range(100), workers={workers}):
        got.append(result)
except UserError:
    print(got)
""")
    assert run.stdout.splitlines()[-1] == "[0, 1, 2, 3, 4]", run.stderr
    assert run.stdout.startswith("UserError the fifth task is wrong")


def test_tasks_are_drawn_ahead_by_a_bounded_number(script):
    run = script("""
drawn = []
def endless():
    while True:
        drawn.append(1)
        yield len(drawn)
results = ordered_map(square, endless(), workers=2)
for taken in range(1, 20):
    next(results)
    assert taken <= len(drawn) <= taken + 2 * 2, (taken, len(drawn))
results.close()
print("closed", len(drawn))
""")
    assert run.stdout == "closed 23\n", run.stderr


def test_an_exception_of_the_stream_of_tasks_comes_through(script):
    run = script("""
def broken():
    yield 1
    raise UserError("line 2 is damaged")
try:
    list(ordered_map(square, broken(), workers=2))
except UserError as error:
    print(error)
""")
    assert run.stdout == "line 2 is damaged\n", run.stderr


def test_a_killed_worker_is_reported_with_advice(script):
    run = script("""
try:
    list(ordered_map(die, range(50), workers=2))
except CheckFailed as error:
    print(error)
""")
    assert run.stdout == "a worker process died, most likely out of memory; try runtime.workers: 1\n", run.stderr


def test_large_tasks_and_results_travel_in_a_folder_of_their_own_that_is_gone_in_the_end(script):
    run = script("""
tasks = [bytes([number]) * (5 << 20) for number in range(8)]
for task, result in ordered_map(reverse, tasks, workers=2):
    assert result == task[::-1]
    [private] = [entry for entry in pathlib.Path().iterdir() if entry.name.startswith("tmp")]
    assert private.stat().st_mode & 0o077 == 0
    assert len(list(private.iterdir())) <= 2 * 2 * 2
assert not [entry for entry in pathlib.Path().iterdir() if entry.name.startswith("tmp")]
""")
    assert (run.returncode, run.stderr) == (0, "")


def test_closing_the_generator_early_stops_the_workers(script):
    run = script("""
results = ordered_map(pid, range(1000), workers=2)
pids = {next(results)[1] for _ in range(6)}
results.close()
print(*pids, flush=True)
assert not any(os.path.exists(f"/proc/{p}") for p in pids)
assert not list(pathlib.Path().glob("tmp*"))
""")
    assert run.returncode == 0, run.stderr
    assert wait_for_end(map(int, run.stdout.split())) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_no_worker_survives_a_killed_parent(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    code = "for task, result in ordered_map(pid, iter(int, 1), workers=2):\n        print(result, flush=True)\n"
    (tmp_path / "main.py").write_text(f"from work import *\nif __name__ == '__main__':\n    {code}")
    environment = {**os.environ, "PYTHONPATH": str(Path(parallel.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as parent:
        pids = set()
        while len(pids) < 2:
            pids.add(int(parent.stdout.readline()))
        assert all(map(alive, pids))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for_end(pids) == []


def test_small_work_starts_no_worker(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 6)
    assert [workers_for(SMALL, n) for n in (0, 1, 2, 9)] == [6, 0, 2, 9]
    assert [workers_for(SMALL - 1, n) for n in (0, 1, 2, 9)] == [0, 0, 0, 0]
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    assert [workers_for(SMALL, n) for n in (0, 1, 2)] == [0, 0, 2]


def test_shared_workers_serve_several_maps_and_are_gone_afterwards(script):
    run = script("""
with parallel.shared_workers(2):
    first = {result for _, result in ordered_map(pid, range(6), workers=2)}
    try:
        list(ordered_map(fail, range(100), workers=2))
    except UserError as error:
        print(error)
    inner = ordered_map(pid, range(6), workers=2)
    outer = [(next(inner)[1], result) for _, result in ordered_map(pid, range(6), workers=2)]
    later = {result for pair in outer for result in pair}
    assert later <= first and len(first) == 2, (first, later)
    inner.close()
    assert [entry.name for entry in pathlib.Path().glob("tmp*")] == []
assert not any(os.path.exists(f"/proc/{p}") for p in first)
with parallel.shared_workers(0):
    assert list(ordered_map(square, [3], workers=0)) == [(3, 9)]
""")
    assert (run.returncode, run.stdout) == (0, "the fifth task is wrong\n"), run.stderr
