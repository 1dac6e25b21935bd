"""After DVC was killed with SIGKILL, `check` names what stops the next DVC and the command that fixes it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_ml.cli.checks import dvc_state
from codex_ml.cli.checks.dvc_state import GUARD, LOCK, RWLOCKS, leftovers
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import load_lock

RWLOCK = RWLOCKS[0]
DVC = [sys.executable, "-m", "dvc"]
PIPELINE = """\
stages:
  slow:
    cmd: echo $$ > pid; test -e go || sleep 120; echo done > out
    outs: [out]
  fast:
    cmd: cat out > last
    deps: [out]
    outs: [last]
"""


def wait_until(condition):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.025)
    raise AssertionError("nothing happened for a minute")


@pytest.fixture
def repository_of_dvc(tmp_path, monkeypatch):
    """A repository of DVC with a stage that waits; what it started is ended at the end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_", "CODEX_TEST"))}
    environment |= {"DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh"}
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name in ("DVC_SITE_CACHE_DIR", "DVC_NO_ANALYTICS", "SHELL"):
        monkeypatch.setenv(name, environment[name])
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([*DVC, "init", "-q"], check=True)
    Path("dvc.yaml").write_text(PIPELINE)
    return folder


def dvc(*arguments):
    return subprocess.run([*DVC, *arguments], capture_output=True, encoding="utf-8", check=False)


def kill_while_the_stage_runs():
    """SIGKILL for DVC in the middle of its stage, and for the stage, which would run on."""
    running = subprocess.Popen([*DVC, "repro", "-q"], start_new_session=True)
    wait_until(lambda: Path("pid").exists() and Path("pid").read_text().strip() and RWLOCK.exists())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    os.killpg(running.pid, signal.SIGKILL)
    return running.pid


def run_the_advice(message):
    words = shlex.split(message.split("`")[1])
    assert words[0] == "rm"
    subprocess.run(words, check=True)


def finishes():
    Path("go").touch()
    done = dvc("repro", "-q")
    assert done.returncode == 0, done.stderr
    assert Path("last").read_text() == "done\n"
    assert list(leftovers()) == []


def test_what_dvc_forgets_by_itself_is_not_a_problem(repository_of_dvc):
    pid = kill_while_the_stage_runs()
    assert pid in dvc_state._holders(RWLOCK)
    assert list(leftovers()) == []
    finishes()


def test_a_lock_that_names_another_program_by_now_is_named_and_mended(repository_of_dvc):
    """The number of the killed process is given to the next program: here, one that sleeps."""
    pid = kill_while_the_stage_runs()
    other = subprocess.Popen(["sleep", "120"], cwd="/")
    try:
        RWLOCK.write_text(RWLOCK.read_text().replace(str(pid), str(other.pid)))
        assert "is busy" in dvc("repro").stderr
        [message] = leftovers()
        assert message.startswith(f".dvc/tmp/rwlock names process {other.pid} (")
        assert f"(process {other.pid}: sleep 120)" in message
        run_the_advice(message)
        finishes()
    finally:
        other.kill()
        other.wait()


def test_the_list_of_locks_of_experiments_in_copies_is_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RWLOCKS[1].parent.mkdir(parents=True)
    RWLOCKS[1].write_bytes(b"")
    assert list(leftovers()) == [CUT.replace(".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")]


CUT = ".dvc/tmp/rwlock was cut when DVC was killed, and no DVC runs here; `rm .dvc/tmp/rwlock` fixes it"


def test_a_lock_that_was_cut_is_named_and_mended(repository_of_dvc):
    kill_while_the_stage_runs()
    RWLOCK.write_bytes(RWLOCK.read_bytes()[:-20])
    assert "is corrupted" in dvc("repro").stderr
    assert list(leftovers()) == [CUT]
    run_the_advice(CUT)
    finishes()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b"null", b"\xff\0", b'{"write": [1]}', b'{"write": {"a": {"pid": "x", "cmd": ""}}}',
             b'{"read": {"a": {"pid": 1}}}', b'{"read": {"a": [{"cmd": "x"}]}}', b'{"write": null}', b"[" * 100_000],
)  # fmt: skip
def test_a_lock_of_another_shape_is_named(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    RWLOCK.parent.mkdir(parents=True)
    RWLOCK.write_bytes(data)
    assert list(leftovers()) == [CUT]


def test_a_dvc_that_runs_is_left_alone_even_when_its_lock_cannot_be_read(repository_of_dvc):
    running = subprocess.Popen([*DVC, "repro", "-q"], start_new_session=True)
    try:
        wait_until(lambda: Path("pid").exists() and Path("pid").read_text().strip() and RWLOCK.exists())
        assert list(leftovers()) == []
        RWLOCK.write_bytes(b"{")
        [message] = leftovers()
        assert message.startswith(".dvc/tmp/rwlock cannot be read while DVC is running (process ")
        assert "rm " not in message
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def test_the_hard_links_of_a_killed_dvc_are_named_and_mended(repository_of_dvc):
    subprocess.run([*DVC, "config", "core.hardlink_lock", "true"], check=True)
    Path("go").touch()
    code = (
        "import os\nfrom dvc.repo import Repo\nrepo = Repo()\nrepo.lock.lock()\nprint('locked', flush=True)\n"
        "import time; time.sleep(120)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, "dvc"], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"locked\n"
    assert list(leftovers()) == []  # it lives
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert "Unable to acquire lock" in dvc("repro").stderr
    [message] = leftovers()
    assert message.startswith(".dvc/tmp/lock belongs to a DVC that was killed: on this machine no DVC runs here; `rm ")
    assert message.endswith(" fixes it, unless another machine works in this folder")
    run_the_advice(message)
    finishes()


def test_locks_of_the_usual_kind_are_no_problem(repository_of_dvc):
    Path("go").touch()
    assert dvc("repro", "-q").returncode == 0
    assert LOCK.exists() and GUARD.exists()
    assert list(leftovers()) == []
    shutil.rmtree(".dvc")
    assert list(leftovers()) == []


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {source!r})
from codex_ml.core.lock import only_one
with only_one(Path(".cache/locks/train"), "train"):
    print("up", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A process that looks like a stage, and holds the lock of one."""
    monkeypatch.chdir(tmp_path)
    Path("stages").mkdir()
    Path("stages/train.py").write_text(SCRIPT.format(source=str(Path(dvc_state.__file__).parents[3])))
    start = f"{shlex.quote(sys.executable)} stages/train.py >up & echo $!"  # the shell ends, the stage is an orphan
    number = int(subprocess.run(["sh", "-c", start], stdout=subprocess.PIPE, check=True).stdout)
    wait_until(lambda: Path("up").read_text())
    yield number
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


def test_a_stage_that_outlived_its_dvc_is_named_until_it_ends(stage):
    [message] = leftovers()
    assert message.startswith(
        f"stage train is still running without DVC (process {stage}); wait for it, or end it with "
    )
    assert message.split("`")[1] == f"kill {stage}"
    subprocess.run(["sh", "-c", message.split("`")[1]], check=True)
    wait_until(lambda: list(leftovers()) == [])


@pytest.mark.parametrize("text", ["", "x", "999999999", "99999999999999999999", "own", "1", "-1", "cut"])
def test_the_number_of_no_stage_is_not_a_problem(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path(".cache/locks").mkdir(parents=True)
    number = os.getpid() if text == "own" else text
    Path(".cache/locks/train").write_text(
        f"process {os.getpid()}" if text == "cut" else f"process {number} on {socket.gethostname()} (/here)"
    )
    assert list(leftovers()) == []


def test_a_stage_of_another_machine_is_not_a_problem(stage):
    lock = Path(".cache/locks/train")
    lock.write_text(lock.read_text().replace(f" on {socket.gethostname()} ", " on another.host "))
    assert list(leftovers()) == []


def test_wherever_the_lock_file_was_cut_the_verdict_is_that_of_dvc(repository_of_dvc):
    """DVC writes dvc.lock in place; what a kill leaves of it is what DVC reads next."""
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.utils.serialize import dump_yaml

    def entry():
        return {"path": "out", "hash": "md5", "md5": "6b86b273ff34fce19d6b804eff5a3f57", "size": 2}

    def stage():
        return {"cmd": "x", "deps": [entry()], "params": {"params.yaml": {"seed": 1}}, "outs": [entry(), entry()]}

    dump_yaml("dvc.lock", {"schema": "2.0", "stages": {"a": stage(), "b": stage()}})
    whole = Path("dvc.lock").read_bytes()
    repo, refused = Repo(), 0
    for end in range(len(whole) + 1):
        Path("dvc.lock").write_bytes(whole[:end])
        try:
            Lockfile(repo, "dvc.lock").load()
            dvc_reads = True
        except DvcException:
            dvc_reads = False
        try:
            load_lock()
            message = ""
        except UserError as error:
            message = str(error)
        assert dvc_reads or message, whole[:end]
        assert not message or (message.startswith("dvc.lock") and "git checkout dvc.lock" in message)
        if dvc_reads and message:  # DVC takes an entry without a hash for one of which it knows nothing
            assert "expected `deps` to" in message or "expected `outs` to" in message, whole[:end]
        refused += bool(message)
    repo.close()
    assert not message and refused > len(whole) / 2


def test_check_names_a_lock_file_that_was_cut(workspace):
    from codex_ml.cli.checks.workspace import problems
    from codex_ml.cli.param_rules import load_params
    from codex_ml.core.pipeline import load_pipeline

    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"fetch": None}}))
    with pytest.raises(
        UserError, match=r"^dvc\.lock: stage fetch has no `cmd`; bring back the committed one with `git "
    ):
        list(problems(load_params(), load_pipeline()))
