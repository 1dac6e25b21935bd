"""A hook gets the event as JSON, with a time limit and without the environment of the stage; a failure changes nothing."""

import json
import logging
import os
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from codex_ml.core.config import EventHook, Runtime
from codex_ml.core.event_hooks import call_hook
from codex_ml.core.events import LogLine, event, read_log
from codex_ml.core.stage_log import start_log

READ = "import os, pathlib, sys; pathlib.Path('seen').write_text(sys.stdin.read()); "


def python(code, *arguments, **options):
    """A hook; on a busy machine Python takes seconds to start."""
    return EventHook(command=(sys.executable, "-c", code, *arguments), **{"seconds": 60.0, **options})


def plugin(name):
    """A hook whose plug-in this process does not see."""
    return EventHook.model_construct(command=(), plugin=name, events=("x",), seconds=60.0)


@pytest.fixture
def logger(workspace, monkeypatch):
    found = logging.getLogger("codex_ml")
    monkeypatch.setattr(found, "handlers", [])
    monkeypatch.setattr(found, "propagate", True)
    yield found
    for handler in found.handlers:
        handler.close()


def test_a_command_gets_the_line_of_the_log_and_its_arguments_as_they_are(logger, workspace, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    code = READ + "pathlib.Path('rest').write_text(repr((sys.argv[1:], dict(os.environ))))"
    hook = python(code, "$(touch owned); `id`", events=("checkpoint",))
    start_log("train", Runtime(on_event=(hook,)))
    logger.info("no event")
    logger.info("another event", extra=event("other"))
    assert not Path("seen").exists()
    logger.info("saved", extra=event("checkpoint", step=25))
    line = LogLine.model_validate(json.loads(Path("seen").read_text()))
    assert (line.stage, line.event, line.message, line.fields) == ("train", "checkpoint", "saved", {"step": 25})
    arguments, environment = eval(Path("rest").read_text())  # noqa: S307 - written by the line above
    assert arguments == ["$(touch owned); `id`"]
    assert not Path("owned").exists()
    assert environment["HOME"] == str(workspace)
    assert "AWS_SECRET_ACCESS_KEY" not in environment


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (python("raise SystemExit('no \\x1b[31m network')"), "exit code 1: no \x1b[31m network"),
        (EventHook(command=("no-such-program-anywhere",)), "[Errno 2] No such file or directory"),
        (EventHook(command=("a\0b",)), "embedded null byte"),
        (python("import time; time.sleep(60)", seconds=0.5), "it did not end within 0.5 s"),
        (plugin("nobody"), "hook 'nobody' is not installed"),
        (python("import os; os.close(0)"), ""),  # reads nothing
    ],
    ids=["fails", "missing", "null", "hangs", "plugin", "deaf"],
)
def test_why_a_hook_failed_is_one_line(workspace, monkeypatch, hook, why):
    found = call_hook(hook, b"{}\n" * 100_000)
    assert (why in found) if why else (found == ""), found
    assert "\n" not in found


def test_what_a_hook_started_ends_with_its_time(tmp_path):
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); " \
        "open(sys.argv[1], 'w').write(str(p.pid)); p.wait()"  # fmt: skip
    assert "did not end" in call_hook(python(code, str(tmp_path / "pid"), seconds=5), b"{}\n")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):  # until init has collected it
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child of the hook still runs")


def test_a_hook_that_leaves_a_process_behind_does_not_hold_the_stage(tmp_path):
    """The process has its own session and keeps the output open; only what waits for the end of a file would notice."""
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], " \
        "start_new_session=True)"  # fmt: skip
    assert call_hook(python(code, seconds=60), b"{}\n") == ""


def test_a_failed_hook_is_logged_once_and_calls_no_hook(logger, capsys):
    hook = EventHook(command=("no-such-program-anywhere",), events=("stage_failed",))
    start_log("pack", Runtime(on_event=(hook,)))
    logger.error("pack: broke", extra=event("stage_failed"))
    lines = list(read_log(Path("logs/pack.ndjson")))
    assert [line.event for line in lines] == ["stage_failed", "hook_failed"]
    assert lines[1].fields["of"] == "stage_failed"
    assert "the hook no-such-program-anywhere for stage_failed failed" in capsys.readouterr().err


def test_a_plug_in_is_called_in_a_process_of_its_own(workspace, tmp_path, monkeypatch):
    """The child ignores PYTHONPATH, so its path is extended as an installed package would be."""
    site = tmp_path / "site"
    (site / "alerts-1.0.dist-info").mkdir(parents=True)
    (site / "alerts-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: alerts\nVersion: 1.0\n")
    (site / "alerts-1.0.dist-info/entry_points.txt").write_text("[codex_ml.hooks]\nto_file = alerts:to_file\n")
    code = "import pathlib\ndef to_file(event):\n    pathlib.Path('alert').write_text(event['message'])\n"
    (site / "alerts.py").write_text(code)
    from codex_ml.core import event_hooks

    monkeypatch.setattr(event_hooks, "_PLUGIN", f"import sys; sys.path.append({str(site)!r})\n" + event_hooks._PLUGIN)
    assert call_hook(plugin("to_file"), b'{"message": "gate failed"}\n') == ""
    assert Path("alert").read_text() == "gate failed"
    assert "alerts" not in sys.modules


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"plugin": "nobody"},
        {"command": ("a",), "plugin": "b"},
        {"command": ("",)},
        {"command": ("a",), "events": ("stage_fail",)},
        {"command": ("a",), "seconds": 0},
    ],
)
def test_a_hook_is_either_a_command_or_a_plug_in_with_a_time(wrong):
    with pytest.raises(ValidationError):
        EventHook(**wrong)
