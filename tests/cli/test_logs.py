"""`codex-ml logs` and `codex-ml runs` show what the stages logged, from this checkout and its experiments."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.log_lines import LogTail
from codex_ml.cli.main import whole_app
from codex_ml.cli.run_history import RunList
from codex_ml.core.events import LogLine
from codex_ml.core.line_file import LineFile
from codex_ml.core.strict_json import ndjson_line

OLD, NEW, LOST = "20260131-110000-00000a", "20260131-120000-00000b", "20260131-130000-00000c"


def line(clock, run, stage, event="message", message="x", level="info", **fields):
    time = f"2026-01-31T{clock}:00.000Z"
    return LogLine(time=time, run=run, stage=stage, level=level, event=event, message=message, fields=fields)


LINES = {
    "logs/pack.ndjson": [
        line("11:00", OLD, "pack", "stage_started", "pack: started", pid=1, experiment=None),
        line("11:01", OLD, "pack", message="pack: a \x1b[2J\nline"),
        line("11:03", OLD, "pack", "stage_finished", "pack: done", seconds=150.0, cpu_seconds=200.5,
             peak_memory_mb=300.5, child_peak_memory_mb=400.0),
    ],
    "logs/train.ndjson": [
        line("11:02", NEW, "train", "stage_started", "train: started", pid=1, experiment=None),
        line("12:01", NEW, "train", message="train: slow", level="warning"),
        line("12:02", NEW, "train", "stage_failed", "train: the loss is\nnot finite", "error", seconds=2.0),
        line("13:00", LOST, "train", "stage_started", "train: started", pid=2**22 + 1, experiment=None),
    ],
    "logs/experiments/sour-tea/pack.ndjson": [
        line("12:30", NEW, "pack", "stage_started", "pack: started", pid=1, experiment="sour-tea"),
        line("12:31", NEW, "pack", "stage_interrupted", "pack: ended by SIGTERM", "warning", seconds=1.0),
    ],
    "logs/errors.ndjson": [],
}  # fmt: skip


@pytest.fixture
def logs(workspace):
    for name, lines in LINES.items():
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(ndjson_line(found.as_json()) for found in lines) + b"{half a line")
    return workspace


def run(*arguments):
    return CliRunner().invoke(whole_app(), [*arguments])


def test_runs_names_results_costs_and_reasons_in_the_order_of_time(logs):
    found = RunList.model_validate_json(run("runs", "--json").stdout).runs
    assert [(one.stage, one.result, one.seconds, one.peak_memory_mb, one.experiment) for one in found] == [
        ("pack", "done", 150.0, 400.0, ""),
        ("train", "failed", 2.0, None, ""),
        ("pack", "interrupted", 1.0, None, "sour-tea"),
        ("train", "killed", None, None, ""),
    ]
    shown = run("runs").stdout.splitlines()
    assert shown[0].split() == [OLD, "2026-01-31", "11:00:00", "pack", "done", "2", "min", "30", "s", "400", "MiB"]
    assert shown[1].endswith("train: the loss is not finite")
    assert shown[2].endswith("sour-tea; pack: ended by SIGTERM")
    assert "killed" in shown[3] and "lack of memory (dmesg): lower train.micro_batch_size" in shown[3]
    assert len(shown) == 4
    assert run("runs", "--stage", "pack", "--last", "1").stdout.count("\n") == 1


def test_a_run_whose_process_holds_the_lock_of_its_stage_is_running(logs):
    from codex_ml.core.lock import only_one

    log = LineFile(Path("logs/split.ndjson"), limit=10_000, kept=1)
    log.append(ndjson_line(line("14:00", LOST, "split", "stage_started", pid=os.getpid(), experiment=None).as_json()))
    log.close()
    assert json.loads(run("runs", "--stage", "split", "--json").stdout)["runs"][0]["result"] == "killed"
    with only_one(Path(".cache/locks/split"), "split"):
        assert json.loads(run("runs", "--stage", "split", "--json").stdout)["runs"][0]["result"] == "running"


def test_logs_are_merged_by_time_and_escaped(logs):
    shown = run("logs").stdout.splitlines()
    assert [text[11:16] for text in shown] == [
        "11:00",
        "11:01",
        "11:02",
        "11:03",
        "12:01",
        "12:02",
        "12:30",
        "12:31",
        "13:00",
    ]
    assert shown[1] == "2026-01-31 11:01:00  pack: a \\x1b[2J line"
    assert shown[5] == "2026-01-31 12:02:00  error: train: the loss is not finite  [stage_failed]"


def test_logs_of_a_stage_a_run_or_a_level(logs):
    assert run("logs", "--level", "warning", "--stage", "train").stdout.count("\n") == 2
    assert run("logs", "--run", OLD).stdout.count("\n") == 3
    assert run("logs", "--run", "20260131").stdout.count("\n") == 9
    assert run("logs", "--run", "last").stdout == "2026-01-31 13:00:00  train: started  [stage_started]\n"
    printed = run("logs", "--json", "--level", "error").stdout
    assert printed.isascii()
    assert LogLine.model_validate_json(printed) == LINES["logs/train.ndjson"][2]


def test_without_logs_both_say_so(workspace):
    assert run("runs").stdout == "runs: the logs hold no run; `dvc repro` runs the stages\n"
    done = run("logs")
    assert (done.stdout, done.exit_code) == ("", 0)
    assert done.stderr == "logs: no line of this stage, run and level; `codex-ml runs` lists the runs\n"
    assert RunList.model_validate_json(run("runs", "--json").stdout).runs == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("logs", "--stage", "tokeniser"), "--stage: dvc.yaml has no stage 'tokeniser'; it has fetch, ingest, "),
        (("runs", "--stage", "../x"), "--stage: dvc.yaml has no stage '../x'; it has fetch, "),
        (("logs", "--level", "loud"), "--level: expected debug, info, warning, error; found 'loud'"),
        (("logs", "--run", "7"), "--run: expected an id such as 20260131-120000-0a1b2c, or its beginning"),
        (("logs", "--run", "../../x"), "--run: expected an id such as "),
        (("logs", "--run", ".*"), "--run: expected an id such as "),
    ],
)
def test_misuse_is_one_line(logs, arguments, message):
    done = run(*arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: {message}")


def test_a_followed_log_misses_no_line_when_it_goes_on_in_a_new_file(tmp_path):
    path = tmp_path / "pack.ndjson"
    file = LineFile(path, limit=400, kept=50)
    tail, found = LogTail(path), []

    def add(number):
        file.append(ndjson_line(line("11:00", OLD, "pack", message=str(number)).as_json()))

    for number in range(5):
        add(number)
    found += tail.all_lines()
    for number in range(5, 30):
        add(number)
        if number % 2:  # at most one rotation between two looks
            found += tail.new_lines()
    assert [int(one.message) for one in found] == list(range(30))
    file.close()


def test_follow_prints_a_line_that_is_added_and_ends_with_ctrl_c(logs, repository):
    environment = {**os.environ, "PYTHONPATH": str(repository / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "codex_ml", "logs", "--follow", "--stage", "pack"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        first = [process.stdout.readline() for _ in range(5)]
        log = LineFile(Path("logs/pack.ndjson"), limit=10_000, kept=1)
        log.append(ndjson_line(line("15:00", NEW, "pack", message="fresh").as_json()))
        assert process.stdout.readline() == "2026-01-31 15:00:00  fresh\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        guard.cancel()
    assert first[0].endswith("pack: started  [stage_started]\n")
    log.close()
