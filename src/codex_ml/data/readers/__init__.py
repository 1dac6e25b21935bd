"""Sources of documents. Each is cut into tasks that worker processes read; nothing is ever unpacked to disk.

A task is small, can be pickled, and has
    file: the file it belongs to, within which the ids of records must be unique,
    bytes: what of the source it stands for, for the progress,
    read(): its documents, and what did not become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codex_ml.config import Source
from codex_ml.data.documents import Document, Refused, writable
from codex_ml.data.readers.compression import Broken, blocks
from codex_ml.data.readers.records import LINE_FACTOR, Context
from codex_ml.errors import UserError, naming, reason_of
from codex_ml.io import expand_glob
from codex_ml.tree import files_of

FOLDERS = ("wheels", "sdists", "git", "datasets")
LINE_FLOOR = 1 << 20


class Task(Protocol):
    """See the module's text."""

    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    def read(self) -> Iterator[Document | Refused]: ...


@dataclass(frozen=True)
class RefusedTask:
    """What was refused while tasks were made, in its place among them."""

    refused: Refused
    bytes: int = 0

    @property
    def file(self) -> str:
        return self.refused.path

    def read(self) -> Iterator[Document | Refused]:
        yield self.refused


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
    for path in paths:
        if not path.is_file() and not path.is_dir():
            yield RefusedTask(Refused(source.label, writable(str(path)), None, "not a regular file", bad=False))
            continue
        try:
            with naming(path):
                for task in _plan(source, path, max_bytes):
                    yield RefusedTask(task) if isinstance(task, Refused) else task
        except Broken as error:
            yield RefusedTask(Refused(source.label, writable(str(path)), None, reason_of(error)))


def _plan(source: Source, path: Path, max_bytes: int) -> Iterator[Task | Refused]:
    context = Context(source, str(path), max_bytes)
    limit = max(LINE_FACTOR * max_bytes, LINE_FLOOR)
    if source.kind == "jsonl":
        from codex_ml.data.readers.lines import plan_lines

        yield from plan_lines(blocks(path), context, limit=limit)
    elif source.kind in ("csv", "tsv"):
        from codex_ml.data.readers.tables import plan_table

        delimiter = "," if source.kind == "csv" else "\t"
        yield from plan_table((data for data, _ in blocks(path)), context, delimiter=delimiter, limit=limit)
    elif source.kind == "parquet":
        from codex_ml.data.readers.parquet import plan_parquet

        yield from plan_parquet(path, context)
    elif source.kind == "datasets":
        from codex_ml.data.readers.datasets import plan_dataset

        yield from plan_dataset(path, lambda name: Context(source, str(path / name), max_bytes))
    elif source.kind == "files":
        from codex_ml.data.readers.files import plan_files

        yield from plan_files(source, path, max_bytes)
    elif source.kind == "git":
        from codex_ml.data.readers.git import plan_git

        yield from plan_git(source, path, max_bytes)
    else:
        from codex_ml.data.readers import packages, tars, zips

        planner = {
            "wheels": packages.plan_wheels,
            "sdists": packages.plan_sdists,
            "zip": zips.plan_zip,
            "tar": tars.plan_tar,
        }[source.kind]
        yield from planner(source, path, max_bytes)
