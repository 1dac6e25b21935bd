"""`codex-ml sweep` with the real DVC, on a project whose stage is a toy: killed, resumed, stopped early."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_project import ToyProject, make_toy

pytestmark = pytest.mark.slow
SPACE = ("--set", "train.lr=loguniform(1e-3,9e-2)", "--set", "model.layers=choice(2,4)")


@pytest.fixture
def toy(tmp_path: Path) -> ToyProject:
    return make_toy(tmp_path)


def trials(printed: str) -> list[tuple[object, ...]]:
    """The list of trials without what differs between equal sweeps: commits (times) and seconds."""
    keys = ("number", "params", "state", "value", "curve", "experiment")
    return [tuple(json.dumps(trial[key]) for key in keys) for trial in json.loads(printed)["trials"]]


@pytest.mark.parametrize("method", ["sobol", "tpe"])
def test_a_sweep_killed_at_random_and_resumed_gives_the_same_list(tmp_path: Path, method: str) -> None:
    options = (*SPACE, "--method", method, "--trials", "5", "--name", "s", "--json")
    whole, killed = make_toy(tmp_path / "a"), make_toy(tmp_path / "b")
    expected = whole.sweep(*options)
    assert expected.returncode == 0, expected.stderr
    draw = random.Random(method)
    for _ in range(3):
        process = killed.start(*options)
        time.sleep(draw.uniform(2.0, 9.0))
        if draw.random() < 0.5:
            process.kill()  # DVC goes on alone, and the next sweep waits for it
        else:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for each in family:  # DVC and its stage die too
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        process.communicate()
    resumed = killed.sweep(*options)
    assert resumed.returncode == 0, resumed.stderr
    assert trials(resumed.stdout) == trials(expected.stdout)
    journal = (killed.root / "logs/sweeps/s/journal.ndjson").read_text().splitlines()
    assert [json.loads(line)["number"] for line in journal[1:]] == list(range(5)), "no trial is recorded twice"
    shown = killed.run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/*").split()
    finished = [trial["experiment"] for trial in json.loads(resumed.stdout)["trials"] if trial["state"] == "finished"]
    assert sorted(shown) == sorted(finished), "every finished trial is an experiment, and nothing else is"
    assert not killed.run("git", "status", "--porcelain")
    before = len(killed.ran)
    again = killed.sweep(*options)
    assert trials(again.stdout) == trials(expected.stdout)
    assert len(killed.ran) == before, "a finished sweep runs nothing"


def test_a_bad_trial_is_stopped_while_it_runs(toy: ToyProject) -> None:
    """Rates from good to bad: the stage of the last one waits for a minute, and is told to end."""
    rates = "train.lr=choice(1e-2,1.1e-2,1.2e-2,1.3e-2,4e-2)"
    found = toy.sweep("--set", rates, "--method", "grid", "--stop-early", "--name", "s", "--json", TOY_SLOW="0.03")
    assert found.returncode == 0, found.stderr
    last = json.loads(found.stdout)["trials"][-1]
    assert (last["state"], last["commit"]) == ("stopped", None)
    loss = (0.04 - 0.01) ** 2 * 1e4 + 4
    assert last["curve"] == [[10, pytest.approx(loss + 0.3)]], "the median at step 10 is far below"
    assert toy.log.with_name("toy.log.stopped").exists(), "the stage ended cleanly"
    assert last["seconds"] < 50
    assert not list((toy.root / ".dvc/tmp/exps/standalone").glob("tmp*")), "DVC removed its copy"


def test_a_dvc_killed_while_it_sets_up_a_trial_leaves_nothing_after_the_next_run(toy: ToyProject) -> None:
    options = ("--set", "train.lr=choice(1e-2,2e-2)", "--method", "grid", "--name", "s", "--json")
    params = toy.root / "params.yaml"
    committed = params.read_text()
    process = toy.start(*options)
    while params.read_text() in (committed, ""):  # DVC writes the values of the trial, and later puts the file back
        assert process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True)
    for each in [process, *family]:
        each.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=60)  # DVC's lock counts a process until its parent has read its exit code
    assert params.read_text() != committed
    done = toy.sweep(*options)
    assert done.returncode == 0, done.stderr
    assert "put back params.yaml, into which a killed experiment wrote its values" in done.stderr
    assert [trial["state"] for trial in json.loads(done.stdout)["trials"]] == ["finished", "finished"]
    assert params.read_text() == committed
    assert not toy.run("git", "status", "--porcelain")
    assert toy.run("git", "symbolic-ref", "HEAD").strip() == "refs/heads/main"


@pytest.mark.parametrize(
    ("number", "last"),
    [
        (signal.SIGINT, "error: interrupted"),
        (signal.SIGTERM, "error: SIGTERM: the sweep ended; run the same command again to go on"),
        (signal.SIGHUP, "error: SIGHUP: the sweep ended; run the same command again to go on"),
    ],
)
def test_an_interrupted_sweep_ends_its_trial_and_records_nothing(
    toy: ToyProject, number: signal.Signals, last: str
) -> None:
    process = toy.start("--set", "train.lr=choice(4e-2,1e-2)", "--method", "grid", "--name", "s", TOY_SLOW="0.03")
    while not toy.ran:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)  # to the sweep alone; a terminal sends Ctrl-C to all
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == last
    assert len(family) >= 2 and not [each for each in family if each.is_running()], "DVC and the stage ended"
    assert toy.log.with_name("toy.log.stopped").exists()
    assert len((toy.root / "logs/sweeps/s/journal.ndjson").read_text().splitlines()) == 1
    done = toy.sweep("--set", "train.lr=choice(4e-2,1e-2)", "--method", "grid", "--name", "s", "--json")
    assert [trial["state"] for trial in json.loads(done.stdout)["trials"]] == ["finished", "finished"]


def test_no_file_and_no_stream_has_a_secret_that_a_failing_stage_prints(toy: ToyProject) -> None:
    token = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # pragma: allowlist secret
    rates = ("--set", "train.lr=choice(7e-2,1e-2)", "--method", "grid", "--name", "s")
    done = toy.sweep(*rates, "--json", TOY_SAYS=f": login with {token} refused")
    assert done.returncode == 0, done.stderr
    trial = json.loads(done.stdout)["trials"][0]
    assert trial["state"] == "failed"
    assert "error: the loss is not finite: login with <SECRET:github-token:" in trial["why"]
    files = [file for file in toy.root.parent.rglob("*") if file.is_file()]
    texts = [done.stdout, done.stderr, *(file.read_bytes().decode("latin-1") for file in files)]
    assert not [text for text in texts if token[4:16] in text]
    assert toy.root / "logs/sweeps/s/000.log" in files


def test_an_experiment_of_that_name_with_other_parameters_is_refused(toy: ToyProject) -> None:
    options = ("--set", "train.lr=choice(1e-2,2e-2)", "--method", "grid", "--name", "s")
    toy.run(sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", "s-000-lr-0.01", "-S", "train.lr=3e-2")
    done = toy.sweep(*options)
    assert done.returncode == 2
    assert (
        "an experiment s-000-lr-0.01 with another train.lr exists already; `dvc exp remove s-000-lr-0.01`"
        in done.stderr
    )
