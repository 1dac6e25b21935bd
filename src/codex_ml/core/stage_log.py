"""The log of a stage: plain lines on the screen, and the same lines as JSON, with time, run and level, in a file.

`codex-ml logs` shows the file. docs/watch.md describes its lines.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError, describe_os_error, safe_text, safe_words
from codex_ml.core.event_hooks import HookCaller
from codex_ml.core.events import LEVELS, is_event, log_line
from codex_ml.core.folders import logs_folder
from codex_ml.core.line_file import LineFile
from codex_ml.core.message_cleaner import clean_message, clean_shown
from codex_ml.core.ranks import rank
from codex_ml.core.strict_json import ndjson_line

log = logging.getLogger("codex_ml")


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = clean_shown(super().format(record))
        return safe_text(shown) if record.exc_info else safe_words(shown)


class _LogFile(logging.Handler):
    """A log that ends at a disk error while the work goes on. By default each further line would print a traceback."""

    def __init__(self, stage: str, runtime: Runtime) -> None:
        super().__init__()
        self._stage = stage
        self._file = LineFile(logs_folder() / f"{stage}.ndjson", limit=runtime.log_bytes, kept=runtime.log_files)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.append(ndjson_line(log_line(record, self._stage, clean_message).as_json()))
        except OSError as error:
            log.removeHandler(self)
            path = os.path.relpath(self._file.path)
            error.filename = None
            log.warning("the log %s ends here: %s", path, describe_os_error(error))
        except (TypeError, ValueError):  # a wrong call of a library: no log may end a stage
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        super().close()


def start_log(name: str, runtime: Runtime | None = None) -> None:
    """Write plain lines to stderr, and the same lines as JSON to <stage>.ndjson in the logs folder.

    Processes of a group other than the first one log warnings and errors only.

    Raises:
        UserError: when the logs folder is a file.
    """
    runtime = runtime or Runtime()
    level = max(LEVELS[runtime.log_level], logging.WARNING if rank() else 0)
    for handler in log.handlers:
        if isinstance(handler, _LogFile):
            handler.close()
    screen = logging.StreamHandler()
    screen.setFormatter(_Plain(f"process {rank()}: %(message)s" if rank() else "%(message)s"))
    screen.setLevel(level)
    screen.addFilter(lambda record: not getattr(record, "quiet", False))
    _make_folder(logs_folder())
    file = _LogFile(name, runtime)
    file.addFilter(lambda record: record.levelno >= level or is_event(record))
    handlers: list[logging.Handler] = [screen, file]
    if runtime.on_event and not rank():
        handlers.append(HookCaller(name, runtime.on_event))
    log.handlers[:] = handlers
    log.setLevel(logging.WARNING if rank() else min(level, logging.INFO))
    log.propagate = False


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{os.path.relpath(folder)} is a file, and a stage writes its log into a folder of that name; move it away"
        ) from None
