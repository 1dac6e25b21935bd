"""A line of a log: its schema, its level, its run; what goes to the screen and what to the file."""

import logging
import math
import re
import sys
from pathlib import Path

import pytest

from codex_ml.core import events, run_events
from codex_ml.core.config import Runtime
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.events import RUN, LogLine, begin_run, event, log_line, read_log, run_id, utc
from codex_ml.core.run_events import logged_run
from codex_ml.core.stage_log import start_log
from codex_ml.core.strict_json import ndjson_line, parse_json

TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"  # the shape of a GitHub token


@pytest.fixture
def log(workspace, monkeypatch):
    """start(**runtime) starts the log of `pack` in a workspace; it returns the logger."""
    logger = logging.getLogger("codex_ml")
    for name, value in (("handlers", []), ("propagate", True), ("level", logger.level)):
        monkeypatch.setattr(logger, name, value)
    monkeypatch.setattr(events, "_begun", {})

    def start(**runtime):
        begin_run()
        start_log("pack", Runtime(**runtime))
        return logger

    yield start
    for handler in logger.handlers:
        handler.close()


def record(message, **more):
    return logging.makeLogRecord({"msg": message, "levelno": logging.INFO, **more})


def written():
    lines = Path("logs/pack.ndjson").read_bytes().splitlines()
    return [LogLine.model_validate(parse_json(line)) for line in lines]  # each line is of the schema


def test_each_line_is_of_the_schema_and_has_the_run_and_the_level(log, capsys):
    logger = log(log_level="debug")
    logger.debug("small \x1b[31m")
    logger.info("rows %d", 3, extra=event("packed", rows=3, share=0.5, names=["a\x07"], nothing=None, bad=math.nan))
    logger.error("broken")
    lines = written()
    assert [(line.level, line.event, line.message) for line in lines] == [
        ("debug", "message", "small \\x1b[31m"), ("info", "packed", "rows 3"), ("error", "message", "broken"),
    ]  # fmt: skip
    assert lines[1].fields == {"rows": 3, "share": 0.5, "names": ["a\\x07"], "nothing": None, "bad": None}
    assert {(line.run, line.stage) for line in lines} == {(run_id(), "pack")}
    assert capsys.readouterr().err == "small \\x1b[31m\nrows 3\nbroken\n"


def test_the_level_hides_messages_but_no_event_of_the_file(log, capsys):
    logger = log(log_level="warning")
    logger.info("hidden")
    logger.info("milestone", extra=event("checkpoint", step=2))
    logger.warning("shown")
    logger.warning("only in the file", extra=event("x", quiet=True))
    assert [line.message for line in written()] == ["milestone", "shown", "only in the file"]
    assert capsys.readouterr().err == "shown\n"


def test_a_warning_holds_no_secret_and_the_policy_leaves_no_import(log):
    before = set(sys.modules)
    log().warning("cannot parse %s", f'{{"token": "{TOKEN}"', extra=event("x", quoted=TOKEN))
    (line,) = written()
    assert TOKEN not in line.message
    assert re.fullmatch(r'cannot parse \{"token": "<SECRET:github-token:[0-9a-f]{8}>"', line.message), line.message
    assert TOKEN not in line.fields["quoted"]
    assert {name for name in set(sys.modules) - before if name.startswith("codex_ml.policy")} == set()


def test_without_a_policy_a_warning_is_withheld(log, workspace):
    (workspace / "data/policy.yaml").write_text("rules: [")
    log().warning("the token is %s", TOKEN)
    (line,) = written()
    assert line.message.startswith("withheld, because the policy cannot be loaded: UserError: data/policy.yaml")
    assert TOKEN not in line.message


def test_other_processes_of_a_group_log_warnings_with_their_rank(log, monkeypatch, capsys):
    run = begin_run()
    monkeypatch.setattr(sys, "_xoptions", {RUN: run})
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    logger = log()
    logger.info("not this")
    logger.warning("this")
    (line,) = written()
    assert (line.message, line.fields, line.run) == ("this", {"rank": 2}, run)
    assert capsys.readouterr().err == "process 2: this\n"


def test_a_run_gets_a_new_id_and_hands_it_to_its_processes(monkeypatch):
    monkeypatch.setenv("CODEX_ML_RUN", "20260131-120000-0a1b2c")
    monkeypatch.setattr(events, "_begun", {})
    new = run_id()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", new)
    assert new != "20260131-120000-0a1b2c"  # what a shell has is no run of ours
    assert new == run_id() != begin_run()
    monkeypatch.setattr(sys, "_xoptions", {RUN: "20260131-120000-0a1b2c"})
    assert begin_run() == run_id() == "20260131-120000-0a1b2c"
    monkeypatch.setattr(sys, "_xoptions", {RUN: "../../etc"})
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", begin_run())


def test_times_are_utc_with_milliseconds():
    assert utc(1_769_860_800.0629) == "2026-01-31T12:00:00.062Z"  # date -u -d @1769860800
    assert log_line(record("x", created=0), "pack", str).time == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ("info", "stage_finished", "pack: done in 2.5 s", None)),
        (UserError("params.yaml: no"), ("error", "stage_failed", "pack: params.yaml: no", "UserError")),
        (KeyboardInterrupt(), ("warning", "stage_interrupted", "pack: interrupted", "KeyboardInterrupt")),
        (SystemExit(143), ("warning", "stage_interrupted", "pack: ended by SIGTERM", "SystemExit")),
        (SystemExit(75), ("error", "stage_failed", "pack: exit code 75", "SystemExit")),
    ],
    ids=str,
)
def test_a_run_has_a_start_and_an_end_with_its_cost(log, monkeypatch, error, expected):
    log()
    clock = iter((10.0, 12.5, 12.5))
    monkeypatch.setattr(run_events.time, "monotonic", lambda: next(clock))

    def work():
        with logged_run("pack"):
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    first, last = written()
    assert (first.event, first.fields["experiment"]) == ("stage_started", None)
    assert (last.level, last.event, last.message, last.fields.get("kind")) == expected
    assert last.fields["seconds"] == 2.5
    assert 10 < last.fields["peak_memory_mb"] < 100_000


def test_a_run_that_a_signal_ended_after_a_checkpoint_is_interrupted(log):
    log()
    error = CheckFailed("SIGTERM: saved the checkpoint")
    error.interrupted = True
    with pytest.raises(CheckFailed), logged_run("pack"):
        raise error
    assert written()[-1].event == "stage_interrupted"


def test_what_is_not_a_line_of_a_log_is_skipped(tmp_path):
    good = log_line(record("x"), "pack", str).as_json()
    hostile = [b"", b"{", b"[]", b'{"time": 3}', b"\xff\xfe", b"NaN", b"[" * 5000, repr({**good, "more": 1}).encode()]
    (tmp_path / "x.ndjson").write_bytes(b"\n".join(hostile) + b"\n" + ndjson_line(good))
    assert [line.message for line in read_log(tmp_path / "x.ndjson")] == ["x"]
