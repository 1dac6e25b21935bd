"""Lines about times, speed and the machine: `logs/train/events.ndjson` and `logs/train/system.ndjson`.

Like the other logs they have a largest size, and their texts pass the policy. A disk error ends one of them with a
warning, and the run goes on: a result does not depend on them.

Used by: train.tracking, train.monitor.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from codex_ml.core.config import Runtime
from codex_ml.core.errors import describe_os_error
from codex_ml.core.events import cleaned, run_id
from codex_ml.core.line_file import LineFile
from codex_ml.core.message_cleaner import clean_message
from codex_ml.core.strict_json import ndjson_line

log = logging.getLogger("codex_ml")


class Timings:
    """A file of JSON lines with `time` (Unix seconds) and `run`.

    >>> Timings(Path("logs/train/events.ndjson")).append({"step": 10, "tokens_per_second": 900.0})  # doctest: +SKIP
    """

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        limits = runtime or Runtime()
        self.path = path
        self._file: LineFile | None = LineFile(path, limit=limits.log_bytes, kept=limits.log_files)

    def append(self, values: dict[str, Any]) -> None:
        """Write a line; after a disk error, do nothing."""
        if self._file is None:
            return
        texts = {name: cleaned(value, clean_message) for name, value in values.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.append(ndjson_line({"time": round(time.time(), 3), "run": run_id(), **texts}))
        except OSError as error:
            self.close()
            self._file, error.filename = None, None
            log.warning("train: the log %s ends here: %s", os.path.relpath(self.path), describe_os_error(error))

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._file is not None:
            self._file.close()
