"""A stage gives its metrics to the trackers in a process of its own; what goes wrong there is one warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from codex_ml.core import result_sender
from codex_ml.core.events import RUN
from codex_ml.core.result_sender import send_results


@pytest.fixture
def called(monkeypatch):
    """The calls of the child, which says `called.why`."""

    class Calls(list):
        why = ""

    calls = Calls()
    monkeypatch.setattr(
        result_sender, "run_briefly", lambda command, given, **options: calls.append((command, options)) or calls.why
    )
    return calls


def test_without_a_tracker_no_process_is_started(called):
    send_results("evaluate", ())
    assert called == []


def test_the_child_knows_where_the_logs_are_and_which_run_it_is(called, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("DVC_EXP_NAME", "sour-tea")
    monkeypatch.setattr(result_sender, "run_id", lambda: "20260131-120000-0a1b2c")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("CODEX_ML_SCRATCH", raising=False)
    send_results("evaluate", ("mlflow", "wandb"))
    ((command, options),) = called
    assert command[-3:] == ["track", "--stage", "evaluate"]
    assert f"{RUN}=20260131-120000-0a1b2c" in command
    assert options["variables"] == {"DVC_EXP_NAME": "sour-tea"}
    assert caplog.messages == ["evaluate: its metrics are in the trackers too (mlflow, wandb)"]


def test_a_failure_is_a_warning_and_nothing_else(called, caplog):
    called.why = "exit code 1: error: no"
    send_results("safety_audit", ("mlflow",))
    assert caplog.messages == [
        "safety_audit: the trackers did not get all metrics (exit code 1: error: no); `codex-ml track` sends them again"
    ]


def test_the_real_command_says_why_in_that_line(workspace, caplog):
    """The workspace has no reports, so the command refuses."""
    send_results("evaluate", ("mlflow",))
    (message,) = caplog.messages
    assert message.startswith(
        "evaluate: the trackers did not get all metrics (exit code 2: error: params.yaml: runtime."
    )
    assert not Path("logs/train").exists()
