"""Records of a reader of another package (entry point `codex_ml.readers`): path of a file -> mappings.

The reader runs in this process and yields one record after the other. Each becomes a line of JSON, which the workers
read like a JSON Lines file, with its limits and its checks. So memory does not grow with the file.
Used by: ingest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin
from codex_ml.documents.document import Refused
from codex_ml.ingest.readers.json_lines import LinesTask
from codex_ml.ingest.readers.tasks import BATCH_BYTES, Context

Reader = Callable[[Path], Iterable[Any]]


def load_reader(name: str) -> Reader:
    """Import a reader.

    Raises:
        UserError: when it cannot be found or imported, its code is not the locked one, or it is not callable.
    """
    reader: Reader = load_locked("readers", name)
    if not callable(reader):
        raise UnusablePlugin("readers", name, f"is not callable, but {type(reader).__name__}")
    return reader


def plan_plugin(reader: Reader, context: Context) -> Iterator[LinesTask | Refused]:
    """Cut the records of a file into tasks; the number of a record, from 1, is its line.

    Raises:
        UserError: when the reader raises, or yields something that is not JSON. The message leaves out its own error
            text, because that may quote a document.
    """
    lines: list[bytes] = []
    held, first, taken = 0, 1, 0
    size = Path(context.path).stat().st_size
    for line in _lines(reader, context):
        lines.append(line)
        held += len(line) + 1
        if held >= BATCH_BYTES:
            done = min(held, size - taken)
            yield LinesTask(context, done, first, b"\n".join(lines), context.record_limit)
            first, taken, held, lines = first + len(lines), taken + done, 0, []
    yield LinesTask(context, size - taken, first, b"\n".join(lines), context.record_limit)


def _lines(reader: Reader, context: Context) -> Iterator[bytes]:
    """The records as lines of JSON."""
    try:
        for record in reader(Path(context.path)):
            yield json.dumps(dict(record), ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
    except (OSError, UserError, GeneratorExit):
        raise
    except Exception as error:
        name = context.source.kind
        raise UserError(
            f"ingest.sources: reader {name!r} failed at {context.file}: {type(error).__name__}; correct the file, or "
            "report it to the author of the reader"
        ) from None
