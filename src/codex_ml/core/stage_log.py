"""The log of a stage: plain lines on the screen, and the same lines with times in a file."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

from codex_ml.core.errors import describe_os_error, safe_text
from codex_ml.core.folders import logs_folder
from codex_ml.core.ranks import rank

log = logging.getLogger("codex_ml")


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe_text(super().format(record))


class _LogFile(logging.FileHandler):
    """A log that ends at a disk error while the work goes on. By default each further line would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        log.removeHandler(self)
        log.warning("the log %s ends here: %s", os.path.relpath(self.baseFilename), describe_os_error(error))

    def close(self) -> None:
        with suppress(OSError):  # lines that could not be written before cannot be written at the end
            super().close()


def start_log(name: str) -> None:
    """Write plain lines to stderr, and the same lines with time stamps to <stage>.log in the logs folder."""
    if rank():
        screen = logging.StreamHandler()
        screen.setFormatter(_Plain(f"process {rank()}: %(message)s"))
        log.handlers[:], log.propagate = [screen], False
        log.setLevel(logging.WARNING)
        return
    logs_folder().mkdir(parents=True, exist_ok=True)
    screen, file = logging.StreamHandler(), _LogFile(logs_folder() / f"{name}.log", encoding="utf-8")
    screen.setFormatter(_Plain("%(message)s"))
    file.setFormatter(_Plain("%(asctime)s %(message)s"))
    log.handlers[:] = [screen, file]
    log.setLevel(logging.INFO)
    log.propagate = False
