"""The readers of sources. A reader cuts a source into tasks that worker processes read; nothing is unpacked to disk.

`plan_source` chooses the reader by the kind of the source. The module `tasks` defines the input and output of a reader.
Used by: ingest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from codex_ml.core.errors import UserError, naming, reason_of
from codex_ml.core.globs import expand_glob
from codex_ml.core.tree import files_of
from codex_ml.documents.document import Refused
from codex_ml.ingest.config import BUILT_IN, Source
from codex_ml.ingest.readers.compression import Broken, blocks
from codex_ml.ingest.readers.tasks import BATCH_BYTES, BATCH_FILES, BatchTask, Context, ReadTask, RefusedTask

Planner = Callable[[Context], Iterator[ReadTask | Refused]]
FOLDERS = ("wheels", "sdists", "git", "datasets")


def paths_of(source: Source) -> Iterator[Path]:
    """The files of a source in the order of their names, or its folder.

    Raises:
        UserError: when the source does not exist or has no such file; raised when the caller asks for the first path.
    """
    path = Path(source.path)
    if path.is_dir() and (source.kind in FOLDERS or source.kind == "files"):
        yield path
        return
    if path.exists() and not path.is_dir():
        if source.kind in FOLDERS:
            raise UserError(f"ingest.sources: {source.path} is not a folder; `kind: {source.kind}` reads a folder")
        if not path.is_file():  # reading a FIFO can block without end, and a device may never end
            raise UserError(f"ingest.sources: {source.path} is neither a file nor a folder; only these are read")
        yield path
        return
    found = False
    for file in _within(path, source) if path.is_dir() else _matching(source):
        found = True
        yield file
    if not found and path.is_dir():
        endings = " or ".join(ENDINGS.get(source.kind, ())[:2])
        raise UserError(f"ingest.sources: {source.path} has no {endings} file".replace("  ", " "))
    if not found:
        raise UserError(f"ingest.sources: {source.path} does not exist; put the data there or remove the source")


def _matching(source: Source) -> Iterator[Path]:
    """The paths that match the glob of a source; only folders' readers get folders."""
    try:
        found = expand_glob(source.path)
    except ValueError as error:
        raise UserError(f"ingest.sources: {source.path} is not a glob: {error}") from None
    return (file for file in found if source.kind in FOLDERS or not file.is_dir())


def _files_by_glob(source: Source) -> tuple[Source, Path]:
    """(the source with the rest of its path as its glob, the folder before the first wildcard of its path)."""
    parts = Path(source.path).parts
    fixed = next(number for number, part in enumerate(parts) if set(part) & set("*?["))
    return source.model_copy(update={"glob": "/".join(parts[fixed:]), "include": ()}), Path(*parts[:fixed])


ENDINGS = {
    "jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",), "parquet": (".parquet",), "zip": (".zip",),
    "tar": (".tar", ".tgz", ".tbz2", ".txz", ".tzst"),
}  # fmt: skip


def _within(folder: Path, source: Source) -> Iterator[Path]:
    """The files in a folder whose names have an ending of the source's kind, also compressed; for a plug-in all."""
    names = ENDINGS.get(source.kind, ("",))
    packed = tuple(name + ending for name in names for ending in (".gz", ".bz2", ".xz", ".zst"))
    return (file for file in files_of(folder) if file.name.lower().endswith((*names, *packed)))


def source_bytes(source: Source) -> int:
    """Bytes of a source on disk, for the progress bar."""
    files = (file for path in paths_of(source) for file in (files_of(path) if path.is_dir() else [path]))
    return sum(file.stat().st_size for file in files if file.is_file())


def plan_source(source: Source, *, max_bytes: int) -> Iterator[ReadTask]:
    """Cut a source into tasks, lazily, in an order that depends on names only.

    Raises:
        UserError: when the source is missing, or has an error that `bad_records` cannot skip.
    """
    paths: Iterable[Path] = paths_of(source)
    plan = _planner(source.kind)
    if source.kind == "files" and not Path(source.path).exists():
        next(iter(paths))  # raises when nothing matches
        label = source.label
        source, folder = _files_by_glob(source)
        source, paths = source.model_copy(update={"name": label}), [folder]
    yield from _in_batches(_tasks(plan, Context(source, str(path), max_bytes)) for path in paths)


def _in_batches(files: Iterable[Iterator[ReadTask]]) -> Iterator[ReadTask]:
    """The tasks of files in their order; tasks of small files are joined to batches."""
    batch: list[ReadTask] = []
    held = 0
    for tasks in files:
        first: list[ReadTask] = []
        decoded, small = 0, True
        for task in tasks:
            first.append(task)
            decoded += task.decoded
            small = len(first) < 3 and decoded < BATCH_BYTES // 4  # a last line without LF is a second task
            if not small:
                break
        if batch and not (small and held + decoded <= BATCH_BYTES and len(batch) < BATCH_FILES):
            yield BatchTask.of(batch)
            batch, held = [], 0
        if small:
            batch += first
            held += decoded
        else:
            yield from first
            yield from tasks
    if batch:
        yield BatchTask.of(batch)


def _tasks(plan: Planner, context: Context) -> Iterator[ReadTask]:
    """The tasks of one file or folder; refusals become tasks too, so that the order stays."""
    path = Path(context.path)
    if not path.is_file() and not path.is_dir():
        yield RefusedTask(context, 0, (context.refused(None, "not a regular file", bad=False),))
        return
    refused: list[Refused] = []
    try:
        with naming(path):
            for item in plan(context):
                if isinstance(item, Refused):
                    refused.append(item)
                if refused and (not isinstance(item, Refused) or len(refused) == BATCH_FILES):
                    yield RefusedTask(context, 0, tuple(refused))
                    refused = []
                if not isinstance(item, Refused):
                    yield item
    except Broken as error:
        refused.append(context.refused(None, reason_of(error)))
    if refused:
        yield RefusedTask(context, 0, tuple(refused))


def _planner(kind: str) -> Planner:
    """What plans the files of a source; a plug-in is looked for and imported once, not per file."""
    if kind in BUILT_IN:
        return _plan
    from codex_ml.ingest.readers.plugin_records import load_reader, plan_plugin

    return partial(plan_plugin, load_reader(kind))


def _plan(context: Context) -> Iterator[ReadTask | Refused]:
    """Import only the reader of this kind, and let it plan."""
    kind, path, limit = context.source.kind, Path(context.path), context.record_limit
    if kind == "jsonl":
        from codex_ml.ingest.readers.json_lines import plan_lines

        return plan_lines(blocks(path), context, limit=limit)
    if kind in ("csv", "tsv"):
        from codex_ml.ingest.readers.csv_tables import plan_table

        delimiter = "," if kind == "csv" else "\t"
        return plan_table((data for data, _ in blocks(path)), context, delimiter=delimiter, limit=limit)
    if kind == "parquet":
        from codex_ml.ingest.readers.parquet import plan_parquet

        return plan_parquet(context)
    if kind == "datasets":
        from codex_ml.ingest.readers.datasets import plan_dataset

        return plan_dataset(context)
    if kind == "files":
        from codex_ml.ingest.readers.files import plan_files

        return plan_files(context)
    if kind == "git":
        from codex_ml.ingest.readers.git_repository import plan_git

        return plan_git(context)
    from codex_ml.ingest.readers import python_packages, tars, zips

    planners: dict[str, Planner] = {
        "wheels": python_packages.plan_wheels,
        "sdists": python_packages.plan_sdists,
        "zip": zips.plan_zip,
        "tar": tars.plan_tar,
    }
    return planners[kind](context)
