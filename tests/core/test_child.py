"""A limited child ends at its limits, reaches neither network nor programs, and leaves the parent one line."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_ml.core import child as child_module
from codex_ml.core.child import AnswerError, LimitedChild
from codex_ml.core.errors import UserError

WORK = """
import json, os, resource, signal, socket, subprocess, sys, time

def prepare():
    return lambda request: globals()[request["do"]](request)

def echo(request):
    print("a line that a library prints")
    os.write(1, b'{"ok": "forged"}\\n')
    return request["value"]

def seen(request):
    return {"environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path, "hash": hash("a")}

def limits(request):
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("AS", "CPU", "CORE")}

def tried(request):
    attempts = {
        "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
        "bind": lambda: socket.socket().bind(("127.0.0.1", 0)),
        "lookup": lambda: socket.getaddrinfo("localhost", 1),
        "other lookup": lambda: socket.gethostbyname("localhost"),
        "datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9)),
        "program": lambda: subprocess.run(["true"]),
        "shell": lambda: os.system("true"),
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "fork": lambda: os.fork(),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "memory": lambda: bytearray(3 << 30),
        "more memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    }
    found = []
    for name, attempt in attempts.items():
        try:
            attempt()
            found.append(name)
        except (PermissionError, MemoryError, ValueError):
            pass
    return found

def fail(request):
    raise ValueError("two\\n  lines")

def take(request):
    return len(bytearray(3 << 30))

def burn(request):
    while True:
        pass

def sleep(request):
    open(request["to"], "w").write(str(os.getpid()))
    time.sleep(600)

def die(request):
    os.kill(os.getpid(), signal.SIGKILL)

def broken():
    raise ImportError("no such\\nlibrary")
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module with functions for the child, which finds it by PYTHONPATH."""
    (tmp_path / "work_of_a_child.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child_module, "KEPT", (*child_module.KEPT, "PYTHONPATH"))
    monkeypatch.delitem(sys.modules, "work_of_a_child", raising=False)
    return importlib.import_module("work_of_a_child")


def test_the_child_has_no_network_no_programs_and_bounded_memory(work):
    with LimitedChild(work.prepare) as child:
        assert child.ask({"do": "tried"}) == []


@pytest.mark.parametrize("once", [False, True])
def test_the_limits_hold_for_each_request_and_of_a_single_one_for_good(work, once):
    with LimitedChild(work.prepare, memory=1 << 29, seconds=7, once=once) as child:
        found = child.ask({"do": "limits"})
    assert found["CORE"] == [0, 0]
    assert found["AS"][0] == found["AS"][1] > 1 << 29
    assert 7 < found["CPU"][0] <= 7 + 1 + 10  # beyond what the start took
    assert found["CPU"][1] == (found["CPU"][0] + 1 if once else -1)


def test_the_child_sees_no_secret_of_the_parent_and_none_of_its_files(work, tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "hidden")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    for folder, expected in ((None, "/"), (tmp_path / "home", str(tmp_path / "home"))):
        with LimitedChild(work.prepare, folder=folder) as child:
            seen = child.ask({"do": "seen"})
        given = set(seen["environment"]) - {"DVC_SITE_CACHE_DIR"}  # the start of Python in this venv may set it
        assert given <= {*child_module.KEPT, *child_module.FIXED, "HOME"}
        assert (seen["environment"]["HOME"], seen["folder"]) == (expected, expected)
        assert seen["environment"]["HF_HUB_OFFLINE"] == "1"
        assert "" not in seen["path"]


def test_an_answer_is_what_the_function_returns_whatever_is_printed(work):
    with LimitedChild(work.prepare) as child:
        large = "\u00e9\n" * 300_000
        assert child.ask({"do": "echo", "value": large}) == large
        child.close()
        assert child.ask({"do": "echo", "value": [1, None]}) == [1, None]
    child.close()


def test_an_error_is_one_line_and_the_next_request_is_served(work):
    with LimitedChild(work.prepare) as child:
        with pytest.raises(AnswerError, match=r"^ValueError: two lines$"):
            child.ask({"do": "fail"})
        with pytest.raises(AnswerError, match=r"^it needs more memory than its limit$"):
            child.ask({"do": "take"})
        assert child.ask({"do": "echo", "value": 1}) == 1


def test_a_limit_that_ended_the_child_is_named_and_the_next_request_is_served(work, tmp_path):
    with LimitedChild(work.prepare, seconds=0) as child:
        ends = r"^it used more than 0 s of CPU time and was ended$|^it did not finish within 1 s and was ended$"
        with pytest.raises(UserError, match=ends):
            child.ask({"do": "burn"})
        with pytest.raises(UserError, match=r"^it did not finish within 1 s and was ended$"):
            child.ask({"do": "sleep", "to": str(tmp_path / "pid")})
        with pytest.raises(
            UserError, match=r"^the child process ended \(SIGKILL\), most likely out of memory \(its limit is 1024 MiB"
        ):
            child.ask({"do": "die"})
        assert child.ask({"do": "echo", "value": 1}) == 1


def test_a_child_that_cannot_start_says_why(work):
    with (
        LimitedChild(work.broken) as child,
        pytest.raises(UserError, match=r"^the child process could not start: ImportError: no such library$"),
    ):
        child.ask({})


def test_a_function_that_the_child_could_not_import_is_refused():
    with pytest.raises(AssertionError, match="the child must import it"):
        LimitedChild(lambda: print)


def test_a_limit_that_the_system_does_not_have_is_reported(monkeypatch, caplog):
    class Child:
        pid, returncode = 0, 0

        def __init__(self, *_, **__):
            pass

    monkeypatch.setattr("subprocess.Popen", Child)
    child = LimitedChild(test_a_limit_that_the_system_does_not_have_is_reported)
    monkeypatch.setattr(child, "_exchange", lambda *_: '{"ok": ["memory"]}')
    child._start()
    os.close(child._lifeline)
    assert caplog.messages == ["this system does not limit the memory of child processes"]


def ended(pid: int) -> bool:
    """Whether the process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_no_child_survives_a_killed_parent(work, tmp_path):
    """Also during a request: no process would read its answer."""
    code = (
        "import sys, work_of_a_child as work\nfrom codex_ml.core import child\nchild.KEPT += ('PYTHONPATH',)\n"
        "child.LimitedChild(work.prepare, seconds=100).ask({'do': 'sleep', 'to': sys.argv[1]})"
    )
    path = f"{tmp_path}{os.pathsep}{Path(child_module.__file__).parents[2]}"
    command = [sys.executable, "-c", code, str(tmp_path / "pid")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as parent:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert not ended(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while not ended(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
