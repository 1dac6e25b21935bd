"""A line of a log: what happened in which run, for people and for programs. docs/watch.md describes the fields.

Any module logs with `logging`. What happened at a milestone of a run has a name and fields of its own:

    log.info("train: saved step %d", step, extra=event("checkpoint", step=step))

The run id is the same in the logs, the side notes and the trackers. It is in no output of the pipeline.

Used by: core.stage_log, core.stage, core.error_log, train, `codex-ml logs`, `codex-ml runs`.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from codex_ml.core.contract import Contract
from codex_ml.core.errors import safe_text
from codex_ml.core.line_file import read_lines
from codex_ml.core.ranks import rank
from codex_ml.core.strict_json import parse_json

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR
}  # fmt: skip
MESSAGE = "message"  # the event of a line without a name of its own
STARTED, FINISHED, FAILED, INTERRUPTED = "stage_started", "stage_finished", "stage_failed", "stage_interrupted"
RUN = "codex_ml_run"  # python -X codex_ml_run=ID gives the run id to the other processes of a run
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


class LogLine(Contract):
    """One line of logs/<stage>.ndjson.

    Attributes:
        time: UTC by ISO 8601, with milliseconds: "2026-01-31T12:00:00.123Z".
        run: see `run_id`.
        event: "message", or the name of a milestone.
        message: as on the screen; control characters are escaped.
        fields: numbers and texts of the event; `rank` where another process than the first one logged.
    """

    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
    run: str = Field(pattern=rf"^{RUN_ID.pattern}$")
    stage: str
    level: Level
    event: str
    message: str
    fields: dict[str, Any]


def event(name: str, *, quiet: bool = False, **fields: Any) -> dict[str, Any]:
    """The argument `extra` of a logging call that makes the line an event.

    Args:
        quiet: whether the line goes only to the file, not to the screen.
        fields: JSON values.
    """
    return {"event": name, "quiet": quiet, "fields": fields}


_begun: dict[str, str] = {}  # the id of this process, once it has one


def begin_run() -> str:
    """Give this process a new run id; a process of a group takes the id that the first one gave it."""
    given = sys._xoptions.get(RUN)
    if isinstance(given, str) and RUN_ID.fullmatch(given):
        _begun["run"] = given
    else:
        _begun["run"] = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + os.urandom(3).hex()
    return _begun["run"]


def run_id() -> str:
    """The id of this run: when it began (UTC), and six random digits. Ids in alphabetical order are in that of time."""
    return _begun.get("run") or begin_run()


def utc(seconds: float) -> str:
    """Unix seconds as a time of a line.

    >>> utc(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def is_event(record: logging.LogRecord) -> bool:
    """Whether a record is an event; those are written whatever the level of the log is."""
    return getattr(record, "event", MESSAGE) != MESSAGE


def log_line(record: logging.LogRecord, stage: str, clean: Callable[[str], str]) -> LogLine:
    """The line of a record of `logging`.

    Args:
        clean: applied to the message and to the texts among the fields.
    """
    level: Level = "debug"
    for name, number in LEVELS.items():
        level = name if record.levelno >= number else level
    fields = {name: cleaned(value, clean) for name, value in getattr(record, "fields", {}).items()}
    return LogLine(
        time=utc(record.created),
        run=run_id(),
        stage=stage,
        level=level,
        event=getattr(record, "event", MESSAGE),
        message=safe_text(clean(record.getMessage())),
        fields={**fields, **({"rank": rank()} if rank() else {})},
    )


def cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """A JSON value with every text in it, also names, cleaned and escaped; what is no JSON value becomes a text."""
    if isinstance(value, str):
        return safe_text(clean(value))
    if isinstance(value, dict):
        return {safe_text(clean(str(name))): cleaned(inner, clean) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner, clean) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    return value if value is None or isinstance(value, bool | int | float) else safe_text(clean(str(value)))


def read_log(file: Path) -> Iterator[LogLine]:
    """Yield the lines of a log and of its older files; what is not such a line is skipped."""
    for line in read_lines(file):
        if found := parsed_line(line):
            yield found


def parsed_line(line: bytes) -> LogLine | None:
    """A line of a log; None for anything else, such as a line that a full disk cut off."""
    try:
        return LogLine.model_validate(parse_json(line))
    except (ValidationError, ValueError):
        return None
