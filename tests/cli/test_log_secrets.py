"""No secret in what a stage logs: in messages, fields, paths, parameters and exceptions, in every file and command."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.core import message_cleaner
from codex_ml.core.config import Runtime
from codex_ml.core.error_log import recorded_failures
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.events import RUN, begin_run, event
from codex_ml.core.run_events import logged_run
from codex_ml.core.stage_log import start_log
from codex_ml.train.timings import Timings
from codex_ml.train.tracking import Sink, Tracker

SECRETS = {
    "message": "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "field": "ghp_" + "bcdefghijklmnopqrstuvwxyz0123456789a",
    "name": "ghp_" + "cdefghijklmnopqrstuvwxyz0123456789ab",
    "path": "ghp_" + "defghijklmnopqrstuvwxyz0123456789abc",
    "cause": "ghp_" + "efghijklmnopqrstuvwxyz0123456789abcd",
    "experiment": "ghp_" + "fghijklmnopqrstuvwxyz0123456789abcde",
    "tracker": "ghp_" + "ghijklmnopqrstuvwxyz0123456789abcdef",
}


def held(text: str) -> list[str]:
    """Names of the secrets that a text holds."""
    return [name for name, secret in SECRETS.items() if secret in text]


@pytest.fixture
def logger(workspace, monkeypatch):
    found = logging.getLogger("codex_ml")
    for name, value in (("handlers", []), ("propagate", True), ("level", found.level)):
        monkeypatch.setattr(found, name, value)
    monkeypatch.setenv(RUN, "")
    yield found
    for handler in found.handlers:
        handler.close()


def read_packed() -> None:
    try:
        raise ValueError(f"bad row {SECRETS['cause']}")
    except ValueError as error:
        raise UserError(f"data/raw/{SECRETS['path']}/a.jsonl:3 is no record; `dvc repro {SECRETS['path']}`") from error


def pack(logger) -> None:
    start_log("pack", Runtime(log_level="debug"))
    with logged_run("pack"):
        fields = {"quoted": [SECRETS["field"]], "counts": {SECRETS["name"]: 1}}
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logger.log(level, "reading %s", SECRETS["message"], extra=event("read", **fields))
        logger.info("reading %s", SECRETS["message"])
        read_packed()


def test_the_screen_shows_none(logger, capsys):
    begin_run()
    with pytest.raises(SystemExit), recorded_failures("pack"), one_line_errors(debug=True):
        pack(logger)
    shown = capsys.readouterr().err
    assert held(shown) == []
    assert shown.count("reading <SECRET:github-token:") == 5
    assert "ValueError: bad row <SECRET:github-token:" in shown  # of the traceback
    assert "error: data/raw/<SECRET:github-token:" in shown


def test_the_screen_shows_a_message_without_its_long_runs_where_the_policy_cannot_be_used(workspace, capsys):
    Path("data/policy.yaml").write_text("rules: [")
    with pytest.raises(SystemExit), recorded_failures("pack"), one_line_errors():
        raise UserError(f"data/policy.yaml:1: odd {SECRETS['message']} in data/raw/a_long_name_of_a_file_2.jsonl")
    assert (
        capsys.readouterr().err == "error: data/policy.yaml:1: odd ghp_... in data/raw/a_long_name_of_a_file_2.jsonl\n"
    )


@pytest.fixture
def failed(logger, monkeypatch):
    """A workspace after a stage logged secrets and failed; every log of it is in `logs`."""
    monkeypatch.setenv("DVC_EXP_NAME", SECRETS["experiment"])
    begin_run()
    with pytest.raises(SystemExit), recorded_failures("pack"), one_line_errors():
        pack(logger)
    monkeypatch.delenv("DVC_EXP_NAME")


def test_no_file_of_the_logs_holds_one(failed):
    files = {str(file): file.read_text() for file in Path("logs").rglob("*") if file.is_file()}
    assert set(files) == {"logs/pack.ndjson", "logs/errors.ndjson"}
    assert held("".join(files.values())) == []
    lines = [json.loads(line) for line in files["logs/pack.ndjson"].splitlines()]
    assert [line["level"] for line in lines] == ["info", "debug", "info", "warning", "error", "info", "error"]
    assert all("<SECRET:github-token:" in line["message"] for line in lines[1:])
    assert "<SECRET:github-token:" in lines[1]["fields"]["quoted"][0]
    assert [name for name in lines[1]["fields"]["counts"] if name.startswith("<SECRET:github-token:")]
    assert "<SECRET:github-token:" in lines[0]["fields"]["experiment"]
    error = json.loads(files["logs/errors.ndjson"])
    assert "<SECRET:github-token:" in error["context"]["causes"][0]
    assert error["suggestion"] == "codex-ml check"


@pytest.mark.parametrize(
    "words",
    [
        *(["logs", "--level", "debug"], ["logs", "--json", "--level", "debug"], ["runs"], ["runs", "--json"]),
        *(["doctor", "--last-error"], ["doctor", "--last-error", "--json"]),
    ],
    ids=" ".join,
)
def test_no_command_shows_one(failed, words):
    done = CliRunner().invoke(whole_app(), words)
    assert done.exit_code == 0
    assert "<SECRET:github-token:" in done.stdout
    assert held(done.output) == []


def test_a_followed_log_shows_none(failed, repository):
    environment = {**os.environ, "PYTHONPATH": str(repository / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "codex_ml", "logs", "--follow", "--level", "error"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        shown = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        rest = "".join(process.communicate(timeout=60))
        guard.cancel()
    assert all("<SECRET:github-token:" in line for line in shown)
    assert held("".join([*shown, rest])) == []


def test_timings_hold_none_that_a_tracker_said(workspace):
    class Sick(Sink):
        name = "sick"

        def log(self, points):
            raise OSError(SECRETS["tracker"])

        def close(self, *, complete):
            pass

    tracker = Tracker(workspace / "curves", Timings(workspace / "logs/train/events.ndjson"), [], extra=(Sick(),))
    tracker.log({"step": 1, "train/loss": 2.0})
    (line,) = map(json.loads, Path("logs/train/events.ndjson").read_text().splitlines())
    assert line["tracker"] == "sick"
    assert line["failed"].startswith("OSError: <SECRET:github-token:")


def test_the_rules_are_read_once_also_where_they_cannot_be_used(workspace, monkeypatch):
    read, real = [], message_cleaner.import_module
    monkeypatch.setattr(message_cleaner, "import_module", lambda name: read.append(name) or real(name))
    Path("data/policy.yaml").write_text("rules: [")
    shown = {message_cleaner.clean_message(message) for message in ("one", SECRETS["message"])}
    (why,) = shown
    assert why.startswith("withheld, because the policy cannot be loaded: UserError: data/policy.yaml")
    assert read == ["codex_ml.policy.cleaner"]
