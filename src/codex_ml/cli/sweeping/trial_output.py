"""What DVC and the stages of a trial print: it enters the tree and the screen only after the text policy has read it.

While the trial runs, the output lies in a file without a name, which is gone when the last process that has it open
ends, however it ends. A value can have several lines, so the text is cleaned as a whole at the end. What the stages log
meanwhile is in `codex-ml logs`.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codex_ml.core.errors import naming, safe_text
from codex_ml.core.folders import scratch_folder
from codex_ml.core.message_cleaner import clean_message

MOST = 1 << 20  # bytes that are kept
BEFORE = 1 << 16  # bytes before them that are cleaned too: they hold the beginning of a value that the cut would halve


@contextmanager
def unnamed_file() -> Iterator[BinaryIO]:
    """A file without a name in the private scratch folder."""
    with tempfile.TemporaryFile(dir=scratch_folder()) as file:
        yield file


def keep_output(file: BinaryIO, log: Path) -> str:
    """Append to `log` what the policy allows of the end of `file`, and return it.

    Control characters become escapes. Without a usable policy the text says so, and holds nothing of the output.
    """
    printed = cleaned(file.fileno())
    with naming(log), log.open("a", encoding="utf-8") as kept:
        kept.write(printed)
    return printed


def cleaned(descriptor: int) -> str:
    """The end of a file as text, cleaned. The file's offset stays, because a process that still writes shares it."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - MOST - BEFORE)
    raw = os.pread(descriptor, size - start, start).decode("utf-8", "replace").replace("\r", "\n")
    text = safe_text(clean_message(raw))
    if start:
        text = f"(the first {start + BEFORE} bytes are left out)\n{text[BEFORE:]}"
    return text if not text or text.endswith("\n") else f"{text}\n"
