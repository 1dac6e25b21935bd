"""What a reader takes and gives: a context, and tasks that worker processes read.

A reader is one function, `plan_...`, from a context to tasks. Each task is small and can be pickled; nothing is ever
unpacked to disk. Used by: ingest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from codex_ml.documents.document import Document, Refused, writable
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import names_seen

BATCH_BYTES, BATCH_FILES = 4 << 20, 1024  # small files in a task; refusals too
LINE_FACTOR = 8  # a record may be this many times a document, for escapes and other fields
LINE_FLOOR = 1 << 20  # bytes


@dataclass(frozen=True)
class Context:
    """A file or a folder of a source, and the limit of its documents.

    Attributes:
        path: as it is opened.
        max_bytes: of a document's content.
    """

    source: Source
    path: str
    max_bytes: int

    @cached_property
    def file(self) -> str:
        """The path as it is shown and written."""
        return writable(self.path)

    @cached_property
    def fields_looked_for(self) -> set[str]:
        """Fields of the records that the user has named."""
        return set(names_seen.renamed(self.source.fields).values())

    @property
    def record_limit(self) -> int:
        """Bytes that a record may have."""
        return max(LINE_FACTOR * self.max_bytes, LINE_FLOOR)

    def refused(self, line: int | None, reason: str, *, bad: bool = True) -> Refused:
        """What a line, a row or (None) the whole file did not become."""
        return Refused(self.source.label, self.file, line, reason, bad)


@dataclass(frozen=True)
class ReadTask(ABC):
    """A part of a source. Ids of records must be unique within `file`.

    Attributes:
        context: the file or folder that it belongs to.
        bytes: of the source that it stands for, for the progress.
    """

    context: Context
    bytes: int

    @property
    def file(self) -> str:
        return self.context.file

    @property
    def decoded(self) -> int:
        """Bytes that its records take in memory, where that can be little."""
        return BATCH_BYTES

    @abstractmethod
    def read(self) -> Iterator[Document | Refused]:
        """Its documents, and what did not become one, in the order of the file."""


Content = bytes  # in a class that has a field named bytes


@dataclass(frozen=True)
class RecordsTask(ReadTask):
    """Whole records of a file of text, the first of which begins at this line.

    Attributes:
        limit: bytes of a record.
    """

    first_line: int
    data: Content
    limit: int

    @property
    def decoded(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class RefusedTask(ReadTask):
    """What was refused one after the other while tasks were made, in its place among them."""

    refused: tuple[Refused, ...]

    @property
    def decoded(self) -> int:
        return 0

    def read(self) -> Iterator[Document | Refused]:
        yield from self.refused


@dataclass(frozen=True)
class BatchTask(ReadTask):
    """All tasks of some small files: to hand over a task costs more than to read such a file."""

    tasks: tuple[ReadTask, ...]

    @classmethod
    def of(cls, tasks: list[ReadTask]) -> ReadTask:
        """The tasks as one; a single one as it is."""
        if len(tasks) == 1:
            return tasks[0]
        return cls(tasks[0].context, sum(task.bytes for task in tasks), tuple(tasks))

    def read(self) -> Iterator[Document | Refused]:
        """What the tasks give, one after the other."""
        return (item for task in self.tasks for item in task.read())
