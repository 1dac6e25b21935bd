"""The input and output of a reader: a context, and tasks that worker processes read.

A reader is one function `plan_...` that takes a context and yields tasks. Each task is small and can be pickled.
Nothing is unpacked to disk. Used by: ingest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from codex_ml.documents.document import Document, Refused, writable
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import names_seen

BATCH_BYTES, BATCH_FILES = 4 << 20, 1024  # limits of a batch of small files, and of refusals
LINE_FACTOR = 8  # a record may be this many times as long as a document, for escapes and other fields
LINE_FLOOR = 1 << 20  # bytes that a record may always have


@dataclass(frozen=True)
class Context:
    """A file or a folder of a source, and the limit for its documents.

    Attributes:
        path: the path to open; it may hold bytes that are not UTF-8.
        max_bytes: limit of a document's content.
    """

    source: Source
    path: str
    max_bytes: int

    @cached_property
    def file(self) -> str:
        """The path as text for messages and documents."""
        return writable(self.path)

    @cached_property
    def fields_looked_for(self) -> set[str]:
        """The field names that the user has set for this source."""
        return set(names_seen.renamed(self.source.fields).values())

    @property
    def record_limit(self) -> int:
        """The limit of a record in bytes."""
        return max(LINE_FACTOR * self.max_bytes, LINE_FLOOR)

    def refused(self, line: int | None, reason: str, *, bad: bool = True) -> Refused:
        """The refusal of a line, a row, or the whole file (None)."""
        return Refused(self.source.label, self.file, line, reason, bad)


@dataclass(frozen=True)
class ReadTask(ABC):
    """A part of a source. Ids of records must be unique within `file`.

    Attributes:
        context: the file or folder that the part belongs to.
        bytes: bytes of the source that the part covers, for the progress bar.
    """

    context: Context
    bytes: int

    @property
    def file(self) -> str:
        return self.context.file

    @property
    def decoded(self) -> int:
        """Bytes that its records take in memory; BATCH_BYTES for a task that never joins a batch."""
        return BATCH_BYTES

    @abstractmethod
    def read(self) -> Iterator[Document | Refused]:
        """Its documents and refusals, in the order of the file."""


Content = bytes  # for classes with a field named `bytes`, which hides the type


@dataclass(frozen=True)
class RecordsTask(ReadTask):
    """Whole records of a text file.

    Attributes:
        first_line: physical line, from 1, at which the first record begins.
        limit: bytes per record.
    """

    first_line: int
    data: Content
    limit: int

    @property
    def decoded(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class RefusedTask(ReadTask):
    """Neighbouring refusals that were found while planning; their place among the tasks keeps the order of the file."""

    refused: tuple[Refused, ...]

    @property
    def decoded(self) -> int:
        return 0

    def read(self) -> Iterator[Document | Refused]:
        yield from self.refused


@dataclass(frozen=True)
class BatchTask(ReadTask):
    """All tasks of some small files, because sending a task to a worker takes longer than reading a small file."""

    tasks: tuple[ReadTask, ...]

    @classmethod
    def of(cls, tasks: list[ReadTask]) -> ReadTask:
        """Join tasks to one task; a single task stays as it is."""
        if len(tasks) == 1:
            return tasks[0]
        return cls(tasks[0].context, sum(task.bytes for task in tasks), tuple(tasks))

    def read(self) -> Iterator[Document | Refused]:
        """The documents and refusals of the tasks, one task after the other."""
        return (item for task in self.tasks for item in task.read())
