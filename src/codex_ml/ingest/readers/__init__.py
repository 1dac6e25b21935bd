"""Sources of documents. Each is cut into tasks that worker processes read; nothing is ever unpacked to disk.

A task is small, can be pickled, and has
    file: the file it belongs to, within which the ids of records must be unique,
    bytes: what of the source it stands for, for the progress,
    read(): its documents, and what did not become one,
    decoded: where it can be small, the bytes that its records take in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codex_ml.core.errors import UserError, naming, reason_of
from codex_ml.core.io import expand_glob
from codex_ml.core.tree import files_of
from codex_ml.documents.document import Document, Refused, writable
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers.compression import Broken, blocks
from codex_ml.ingest.readers.records import Context, record_limit

FOLDERS = ("wheels", "sdists", "git", "datasets")
BATCH_BYTES, BATCH_FILES = 4 << 20, 1024  # small files in a task; refusals too


class Task(Protocol):
    """See the module's text."""

    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    def read(self) -> Iterator[Document | Refused]: ...


@dataclass(frozen=True)
class RefusedTask:
    """What was refused one after the other while tasks were made, in its place among them."""

    refused: tuple[Refused, ...]
    bytes: int = 0
    decoded: int = 0

    @property
    def file(self) -> str:
        return self.refused[0].path

    def read(self) -> Iterator[Document | Refused]:
        yield from self.refused


@dataclass(frozen=True)
class Batch:
    """All tasks of some small files: to hand over a task costs more than to read such a file."""

    tasks: tuple[Task, ...]

    @property
    def file(self) -> str:
        return self.tasks[0].file

    @property
    def bytes(self) -> int:
        return sum(task.bytes for task in self.tasks)

    def read(self) -> Iterator[Document | Refused]:
        """What the tasks give, one after the other."""
        return (item for task in self.tasks for item in task.read())


def paths_of(source: Source) -> Iterator[Path]:
    """The files of a source, or its folder, in the order of their names.

    Raises:
        UserError: when there is none, after the last.
    """
    path = Path(source.path)
    if path.is_dir() and (source.kind in FOLDERS or source.kind == "files"):
        yield path
        return
    if path.exists() and not path.is_dir():
        if source.kind in FOLDERS:
            raise UserError(f"ingest.sources: {source.path} is no folder; `kind: {source.kind}` reads a folder")
        if not path.is_file():  # a FIFO blocks for ever, a device has no end
            raise UserError(f"ingest.sources: {source.path} is neither a file nor a folder; only these are read")
        yield path
        return
    found = False
    for file in _within(path, source) if path.is_dir() else _matching(source):
        found = True
        yield file
    if not found and path.is_dir():
        raise UserError(f"ingest.sources: {source.path} holds no {' or '.join(ENDINGS[source.kind][:2])} file")
    if not found:
        raise UserError(f"ingest.sources: {source.path} does not exist; put the data there or remove the source")


def _matching(source: Source) -> Iterator[Path]:
    """What the glob of a source matches."""
    try:
        found = expand_glob(source.path)
    except ValueError as error:
        raise UserError(f"ingest.sources: {source.path} is no glob: {error}") from None
    return (file for file in found if source.kind in FOLDERS or not file.is_dir())


def _files_by_glob(source: Source) -> tuple[Source, Path]:
    """The folder in front of the first wildcard, and the source with the rest of its path as the glob in there."""
    parts = Path(source.path).parts
    fixed = next(number for number, part in enumerate(parts) if set(part) & set("*?["))
    return source.model_copy(update={"glob": "/".join(parts[fixed:]), "include": ()}), Path(*parts[:fixed])


ENDINGS = {
    "jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",), "parquet": (".parquet",), "zip": (".zip",),
    "tar": (".tar", ".tgz", ".tbz2", ".txz", ".tzst"),
}  # fmt: skip


def _within(folder: Path, source: Source) -> Iterator[Path]:
    """Files of the kind in a folder."""
    names = ENDINGS[source.kind]
    packed = tuple(name + ending for name in names for ending in (".gz", ".bz2", ".xz", ".zst"))
    return (file for file in files_of(folder) if file.name.lower().endswith((*names, *packed)))


def size_of(source: Source) -> int:
    """Bytes on disk, for the progress."""
    files = (file for path in paths_of(source) for file in (files_of(path) if path.is_dir() else [path]))
    return sum(file.stat().st_size for file in files if file.is_file())


def plan(source: Source, *, max_bytes: int) -> Iterator[Task]:
    """The tasks of a source, in an order that depends on names only; made as they are asked for.

    Raises:
        UserError: when the source is missing, or damaged in a way that no policy covers.
    """
    paths: Iterable[Path] = paths_of(source)
    if source.kind == "files" and not Path(source.path).exists():
        next(iter(paths))  # raises where there is none
        label = source.label
        source, folder = _files_by_glob(source)
        source, paths = source.model_copy(update={"name": label}), [folder]
    yield from _in_batches(_tasks(source, path, max_bytes) for path in paths)


def _in_batches(files: Iterable[Iterator[Task]]) -> Iterator[Task]:
    """The tasks of files in their order, those of small files put together."""
    batch: list[Task] = []
    held = 0
    for tasks in files:
        first: list[Task] = []
        decoded, small = 0, True
        for task in tasks:
            first.append(task)
            decoded += getattr(task, "decoded", BATCH_BYTES)
            small = len(first) < 3 and decoded < BATCH_BYTES // 4  # a last line without LF is a task too
            if not small:
                break
        if batch and not (small and held + decoded <= BATCH_BYTES and len(batch) < BATCH_FILES):
            yield Batch(tuple(batch)) if len(batch) > 1 else batch[0]
            batch, held = [], 0
        if small:
            batch += first
            held += decoded
        else:
            yield from first
            yield from tasks
    if batch:
        yield Batch(tuple(batch)) if len(batch) > 1 else batch[0]


def _tasks(source: Source, path: Path, max_bytes: int) -> Iterator[Task]:
    """The tasks of a file or folder."""
    if not path.is_file() and not path.is_dir():
        yield RefusedTask((Refused(source.label, writable(str(path)), None, "not a regular file", bad=False),))
        return
    refused: list[Refused] = []
    try:
        with naming(path):
            for item in _plan(source, path, max_bytes):
                if isinstance(item, Refused):
                    refused.append(item)
                if refused and (not isinstance(item, Refused) or len(refused) == BATCH_FILES):
                    yield RefusedTask(tuple(refused))
                    refused = []
                if not isinstance(item, Refused):
                    yield item
    except Broken as error:
        refused.append(Refused(source.label, writable(str(path)), None, reason_of(error)))
    if refused:
        yield RefusedTask(tuple(refused))


def _plan(source: Source, path: Path, max_bytes: int) -> Iterator[Task | Refused]:
    context = Context(source, str(path), max_bytes)
    limit = record_limit(max_bytes)
    if source.kind == "jsonl":
        from codex_ml.ingest.readers.json_lines import plan_lines

        yield from plan_lines(blocks(path), context, limit=limit)
    elif source.kind in ("csv", "tsv"):
        from codex_ml.ingest.readers.csv_tables import plan_table

        delimiter = "," if source.kind == "csv" else "\t"
        yield from plan_table((data for data, _ in blocks(path)), context, delimiter=delimiter, limit=limit)
    elif source.kind == "parquet":
        from codex_ml.ingest.readers.parquet import plan_parquet

        yield from plan_parquet(path, context)
    elif source.kind == "datasets":
        from codex_ml.ingest.readers.datasets import plan_dataset

        yield from plan_dataset(path, lambda name: Context(source, str(path / name), max_bytes))
    elif source.kind == "files":
        from codex_ml.ingest.readers.files import plan_files

        yield from plan_files(source, path, max_bytes)
    elif source.kind == "git":
        from codex_ml.ingest.readers.git_repository import plan_git

        yield from plan_git(source, path, max_bytes)
    else:
        from codex_ml.ingest.readers import python_packages as packages
        from codex_ml.ingest.readers import tars, zips

        planner = {
            "wheels": packages.plan_wheels,
            "sdists": packages.plan_sdists,
            "zip": zips.plan_zip,
            "tar": tars.plan_tar,
        }[source.kind]
        yield from planner(source, path, max_bytes)
