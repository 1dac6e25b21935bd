"""logs/errors.ndjson: every failure of a stage or command once, with its cause and the command that helps.

    {"time": ..., "run": ..., "where": "train", "step": "train: starting at step 0 of 600", "kind": "UserError", ...}

Used by: core.stage, cli.main.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field, ValidationError

from codex_ml.core.contract import Contract
from codex_ml.core.errors import CheckFailed, Failure, on_failure, safe_text
from codex_ml.core.events import run_id, utc
from codex_ml.core.folders import logs_folder
from codex_ml.core.interruption import is_interruption
from codex_ml.core.line_file import LineFile, read_lines
from codex_ml.core.message_cleaner import clean_message, clean_shown
from codex_ml.core.pipeline import PIPELINE
from codex_ml.core.ranks import rank
from codex_ml.core.strict_json import ndjson_line, parse_json

ERRORS = "errors.ndjson"
LIMIT, KEPT = 1_000_000, 2  # bytes of the file, and older files
# A command that a message names; the words are those that our messages use.
COMMAND = re.compile(r"`((?:dvc|codex-ml|git|make|python|ulimit|\S*/python|df) [^`]+)`")


class ErrorLine(Contract):
    """One line of logs/errors.ndjson; every text has passed the policy.

    Attributes:
        where: the stage, or the command without its arguments.
        step: the last message of the log before the failure; "" where nothing was logged.
        kind: the class of the exception.
        message: the line on the screen without "error: ".
        context: the causes ("ValueError: ..."), the innermost place in the library ("core/io.py:123"), the process.
        suggestion: the command that helps.
        traceback: of an internal error, "" of any other.
    """

    time: str
    run: str
    where: str
    step: str
    kind: str
    message: str
    exit_code: int
    context: dict[str, str | int | list[str]]
    suggestion: str
    traceback: str = Field("")


class _LastMessage(logging.Filter):
    """Keeps the last message of the log, and lets every record pass."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        with suppress(Exception):  # a wrong number of arguments is reported where the record is written
            self.text = record.getMessage()
        return True


@contextmanager
def recorded_failures(where: str) -> Iterator[None]:
    """In this block, append a line to logs/errors.ndjson for each failure that `one_line_errors` catches.

    Args:
        where: the stage, or the command with the word codex-ml.
    """
    last, log = _LastMessage(), logging.getLogger("codex_ml")
    log.addFilter(last)
    try:
        with on_failure(lambda failure: record_failure(where, last.text, failure), clean=clean_shown):
            yield
    finally:
        log.removeFilter(last)


def last_error() -> ErrorLine | None:
    """The newest line of logs/errors.ndjson that can be read; None where there is none."""
    found = None
    for line in read_lines(logs_folder() / ERRORS):
        with suppress(ValidationError, ValueError):
            found = ErrorLine.model_validate(parse_json(line))
    return found


def error_line(where: str, step: str, failure: Failure) -> ErrorLine:
    """Describe a failure; see `ErrorLine` for `where` and `step`."""
    error = failure.error
    internal = failure.message.startswith("internal error")
    trace = "".join(traceback.format_exception(error)) if internal else ""
    causes = [f"{type(cause).__name__}: {cause}" for cause in _causes(error)]
    return ErrorLine(
        time=utc(time.time()),
        run=run_id(),
        where=where,
        step=_shown(step),
        kind=type(error).__name__,
        message=(message := _shown(failure.message)),
        exit_code=failure.code,
        context={
            **({"causes": [_shown(cause)[:1000] for cause in causes]} if causes else {}),
            **({"place": place} if (place := _place(error)) else {}),
            **({"rank": rank()} if rank() else {}),
        },
        suggestion=_suggestion(where, message, failure.error, internal=internal),
        traceback=_shown(trace),
    )


def record_failure(where: str, step: str, failure: Failure) -> None:
    """Append a failure to logs/errors.ndjson, inside a repository only; a disk error is ignored.

    Args:
        where, step: see `ErrorLine`.
    """
    if is_interruption(failure.error) or not Path(PIPELINE).is_file():
        return
    folder = logs_folder()
    with suppress(OSError):  # the screen has the message already, or gets it next
        folder.mkdir(parents=True, exist_ok=True)
        file = LineFile(folder / ERRORS, limit=LIMIT, kept=KEPT)
        file.append(ndjson_line(error_line(where, step, failure).as_json()))
        file.close()


def _shown(text: str) -> str:
    return safe_text(clean_message(text)) if text else ""


def _causes(error: BaseException) -> list[BaseException]:
    """What an exception was raised from, at most five, without what it hides (`raise ... from None`)."""
    found: list[BaseException] = []
    while len(found) < 5:
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None or inner in found:
            break
        found.append(inner)
        error = inner
    return found


def _place(error: BaseException) -> str:
    """File and line of the innermost frame in the library."""
    library = Path(__file__).resolve().parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(library) and file != library / "core/errors.py":  # that one only caught it
            return f"{file.relative_to(library).as_posix()}:{frame.lineno}"
    return ""


def _suggestion(where: str, message: str, error: BaseException, *, internal: bool) -> str:
    """The command that a message names, if the policy removed nothing from it; else the one that shows more.

    Args:
        message: cleaned.
    """
    if (named := COMMAND.search(message)) and "<SECRET:" not in named[1]:
        return named[1]
    if internal:
        return f"{where} --debug" if _is_command(where) else f"python -P stages/{where}.py --debug"
    if isinstance(error, CheckFailed) and not _is_command(where):
        return f"dvc repro {where}"
    return "codex-ml check"


def _is_command(where: str) -> bool:
    return where.split()[:1] == ["codex-ml"]
