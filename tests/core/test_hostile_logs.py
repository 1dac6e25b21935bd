"""A log on a full disk, or whose file is not what it should be, costs one warning; the stage and its result stay."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.core.config import Runtime
from codex_ml.core.line_file import LineFile
from codex_ml.core.stage_log import start_log
from codex_ml.train.timings import Timings
from codex_ml.train.tracking import Tracker

FULL = 100_000  # bytes of the largest file that the process may write
LOG = "logs/fetch.ndjson"


def fetch(*, limit: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """Run the stage `fetch`, which has nothing to download here."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "CODEX_ML_"))}
    return subprocess.run(
        [sys.executable, "stages/fetch.py"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def results(workspace, tree):
    """results(): the outputs of `fetch`; nothing is downloaded."""
    file = Path("params.yaml")
    text = file.read_text().replace("sample: true", "sample: false").replace("benchmarks: true", "benchmarks: false")
    file.write_text(text)
    return lambda: {name: tree(Path(name)) for name in ("data/raw/sample", "data/benchmarks/sample", "reports/fetch")}


@pytest.fixture
def logger(workspace, monkeypatch):
    found = logging.getLogger("codex_ml")
    for name, value in (("handlers", []), ("propagate", True), ("level", found.level)):
        monkeypatch.setattr(found, name, value)
    yield found
    for handler in found.handlers:
        handler.close()


def run(*words: str):
    return CliRunner().invoke(whole_app(), [*words])


def test_a_log_that_cannot_grow_is_one_line_and_the_stage_has_the_same_result(results):
    assert fetch().returncode == 0
    expected = results()
    before = Path(LOG).read_bytes()
    Path(LOG).write_bytes(before + b"x" * (FULL - len(before) - 1) + b"\n")  # as the log of many runs
    done = fetch(limit=FULL)
    assert done.returncode == 0, done.stderr
    why = "a file would grow beyond the size limit of this process (ulimit -f)"
    assert [line for line in done.stderr.splitlines() if "log" in line] == [f"the log {LOG} ends here: {why}"]
    assert "fetch: done in " in done.stderr
    assert results() == expected
    assert Path(LOG).stat().st_size == FULL


def test_a_line_that_fits_only_in_part_is_not_torn(results):
    assert fetch().returncode == 0
    before = Path(LOG).read_bytes()
    filled = before + b"x" * (FULL - len(before) - 31) + b"\n"  # 30 bytes are left
    Path(LOG).write_bytes(filled)
    assert fetch(limit=FULL).returncode == 0
    assert Path(LOG).read_bytes() == filled
    assert [run["result"] for run in json.loads(run("runs", "--json").stdout)["runs"]] == ["done"]


def elsewhere(path: Path) -> None:
    Path("diary").write_text("mine\n")
    path.symlink_to(Path("diary").absolute())


def endless(path: Path) -> None:
    path.symlink_to(path.name)


HOSTILE = [
    (elsewhere, "this is a symbolic link"),
    (endless, "this is a symbolic link"),
    (Path.mkdir, "Is a directory"),
    (os.mkfifo, "this is not a regular file"),
]


@pytest.mark.parametrize(("make", "why"), HOSTILE, ids=["link", "endless link", "folder", "pipe"])
def test_what_is_not_a_file_is_one_line_and_is_left_alone(logger, capsys, make, why):
    Path("logs").mkdir()
    make(Path("logs/pack.ndjson"))
    start_log("pack")
    for number in range(3):
        logger.info("line %d", number)
    said = f"the log logs/pack.ndjson ends here: {why}"
    assert capsys.readouterr().err.splitlines() == ["line 0", said, "line 1", "line 2"]
    assert not Path("diary").exists() or Path("diary").read_text() == "mine\n"
    for words in (("logs",), ("runs",), ("logs", "--json")):
        assert run(*words).exit_code == 0


def test_a_log_that_may_not_be_written_is_one_line(logger, capsys, monkeypatch):
    real = os.open

    def refuse(path, flags, *mode, **options):
        if str(path).endswith("pack.ndjson"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    start_log("pack")
    logger.info("goes on")
    said = "the log logs/pack.ndjson ends here: permission denied; check the owner and the mode of this path"
    assert capsys.readouterr().err.splitlines() == ["goes on", said]


def test_a_file_in_place_of_the_folder_ends_the_stage_with_one_line(results):
    Path("logs").write_text("not a folder")
    done = fetch()
    assert done.returncode == 2
    assert done.stderr == "error: logs is a file, and a stage writes its log into a folder of that name; move it away\n"


def test_bytes_that_are_no_lines_are_skipped_and_the_next_line_is_whole(logger):
    Path("logs").mkdir()
    Path("logs/pack.ndjson").write_bytes(random.Random(0).randbytes(300_000) + b'\n\0\0\xff{"time": ')
    start_log("pack")
    logger.info("after it")
    done = run("logs")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert done.stdout.endswith("  after it\n")


def test_a_log_goes_on_in_new_files_and_keeps_so_many(logger):
    start_log("pack", Runtime(log_bytes=10_000, log_files=2))
    for number in range(300):
        logger.info("line %03d", number)
    files = {file.name: file.read_bytes() for file in Path("logs").iterdir()}
    assert sorted(files) == ["pack.ndjson", "pack.ndjson.1", "pack.ndjson.2"]
    assert all(len(content) <= 10_000 and content.endswith(b"\n") for content in files.values())
    shown = [int(line.rpartition(" ")[2]) for line in run("logs").stdout.splitlines()]
    assert shown == list(range(shown[0], 300))
    assert len(shown) == sum(content.count(b"\n") for content in files.values()) < 300


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_decides_what_a_log_holds(logger, level):
    start_log("pack", Runtime(log_level=level))
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(number, "x")
    held = [json.loads(line)["level"] for line in Path("logs/pack.ndjson").read_bytes().splitlines()]
    order = ["debug", "info", "warning", "error"]
    assert held == order[order.index(level) :]


def test_timings_on_a_full_disk_are_one_warning_and_the_curves_go_on(workspace, caplog, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "logs/train/events.ndjson")

    monkeypatch.setattr(LineFile, "append", full)
    tracker = Tracker(Path("curves"), Timings(Path("logs/train/events.ndjson")), [])
    for step in (1, 2):
        tracker.log({"step": step, "train/loss": 2.0})
        tracker.event(step=step, tokens_per_second=900.0)
    tracker.finish({})
    full_disk = "the disk is full; free some space and run the same command again"
    assert caplog.messages == [f"train: the log logs/train/events.ndjson ends here: {full_disk}"]
    curve = Path("curves/plots/metrics/train/loss.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in curve[1:]] == ["1", "2"]


def test_timings_go_on_in_new_files_and_hold_time_and_run(workspace):
    lines = Timings(Path("logs/train/system.ndjson"), Runtime(log_bytes=10_000, log_files=1))
    for number in range(400):
        lines.append({"number": number, "bad": float("nan")})
    lines.close()
    assert sorted(file.name for file in Path("logs/train").iterdir()) == ["system.ndjson", "system.ndjson.1"]
    last = json.loads(Path("logs/train/system.ndjson").read_bytes().splitlines()[-1])
    assert (last["number"], last["bad"], set(last)) == (399, None, {"number", "bad", "time", "run"})


def test_a_wrong_call_of_the_log_ends_nothing(logger, capsys):
    start_log("pack")
    logger.info("%d lines", "many")
    logger.info("and on")
    assert "Logging error" in capsys.readouterr().err  # what Python says of such a call
    assert [json.loads(line)["message"] for line in Path("logs/pack.ndjson").read_text().splitlines()] == ["and on"]
