"""SIGTERM and SIGHUP end the trial too; `test_real_sweep.py` sends them to a sweep with the real DVC."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.cli.sweeping import experiment_run, trial_experiment
from codex_ml.cli.sweeping.ending_signals import EndedBySignal, Terminated, ended_by_signals
from codex_ml.cli.sweeping.trial_experiment import Launch, run_experiment

# It says `ready`, notes each SIGINT in `signals`, and ends once it has one and `end` exists.
DVC = """
import pathlib, signal, time
times = []
signal.signal(signal.SIGINT, lambda number, frame: times.append(number))
pathlib.Path("ready").touch()
while not times or not pathlib.Path("end").exists():
    time.sleep(0.02)
    pathlib.Path("signals").write_text("x" * len(times))
"""


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial_experiment, "command", lambda launch, target: [sys.executable, "-c", DVC])
    return Launch("s-000", {}, "0" * 40, Path("000.log"), os.open("lock", os.O_CREAT))


def signals_of_trial() -> int:
    return len(Path("signals").read_text()) if Path("signals").exists() else 0


def wait_for(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.02)


def in_thread(send: Callable[[], None]) -> threading.Thread:
    """Run `send` once the trial runs, then let the trial end."""

    def work() -> None:
        wait_for(Path("ready").exists)
        send()
        Path("end").touch()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("more", [0, 2])
def test_a_signal_ends_the_trial_once_and_the_sweep_after_it(launch: Launch, number: signal.Signals, more: int) -> None:
    before = signal.getsignal(number)

    def send() -> None:
        os.kill(os.getpid(), number)
        wait_for(lambda: signals_of_trial() == 1)
        for _ in range(more):
            os.kill(os.getpid(), number)
            time.sleep(0.1)  # long enough for a second signal to the trial, which must not come

    thread = in_thread(send)
    with pytest.raises(EndedBySignal) as raised, ended_by_signals("the sweep"):
        run_experiment(launch, "train", None)
    thread.join()
    assert signals_of_trial() == 1
    assert Path("000.log").exists(), "the sweep waited for the end of the trial, and kept what it printed"
    assert (raised.value.exit_code, raised.value.interrupted) == (128 + number, True)
    assert str(raised.value) == f"{number.name}: the sweep ended; run the same command again to go on"
    assert signal.getsignal(number) is before


def test_each_further_ctrl_c_reaches_the_trial(launch: Launch) -> None:
    def send() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for count in (1, 2):
            wait_for(lambda count=count: signals_of_trial() == count)  # type: ignore[misc]
            os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: signals_of_trial() == 3)

    thread = in_thread(send)
    with pytest.raises(EndedBySignal), ended_by_signals("the sweep"):
        run_experiment(launch, "train", None)
    thread.join()
    assert signals_of_trial() == 3


def test_a_stage_that_starts_after_dvc_got_the_signal_ends_too(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    late = """
import pathlib, signal, subprocess, sys, time
times = []
signal.signal(signal.SIGINT, lambda number, frame: times.append(number))
pathlib.Path("ready").touch()
while not times:
    time.sleep(0.02)
code = subprocess.run([sys.executable, "stages/train.py"]).returncode
pathlib.Path("code").write_text(str(code))
pathlib.Path("signals").write_text("x" * len(times))
"""
    Path("stages").mkdir()
    Path("stages/train.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
    monkeypatch.setattr(trial_experiment, "command", lambda launch, target: [sys.executable, "-c", late])
    thread = in_thread(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(EndedBySignal), ended_by_signals("the sweep"):
        run_experiment(launch, "train", None)
    thread.join()
    assert Path("code").read_text() in (str(-signal.SIGINT), "1"), "a signal ended the stage"
    assert signals_of_trial() == 1, "DVC got the first SIGINT alone, and the stage the second"


@pytest.mark.parametrize(("ending", "undone"), [("os.kill(os.getpid(), 9)", True), ("os._exit(1)", False)])
def test_the_workspace_is_put_back_where_dvc_was_killed(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, ending: str, undone: bool
) -> None:
    done: list[Path] = []
    monkeypatch.setattr(experiment_run, "put_back", done.append)
    monkeypatch.setattr(
        trial_experiment, "command", lambda launch, target: [sys.executable, "-c", f"import os; {ending}"]
    )
    assert run_experiment(launch, "train", None)[0] == (-9 if undone else 1)
    assert done == ([Path()] if undone else [])
    assert Path("running.json").exists() == undone, "a DVC that ended by itself put everything back"


def test_ctrl_c_stays_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, ended_by_signals("the sweep"):
        raise KeyboardInterrupt
    assert not isinstance(raised.value, Terminated)


def test_a_signal_that_is_ignored_stays_ignored_as_under_nohup() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals("the sweep"):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
