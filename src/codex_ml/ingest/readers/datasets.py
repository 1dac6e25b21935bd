"""Read folders that `save_to_disk` of Hugging Face datasets has written: state.json names Arrow files in the folder.

Used by: ingest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from codex_ml.core.errors import UserError, naming, reason_of
from codex_ml.core.io import read_json
from codex_ml.core.tree import is_left_out, stands_for
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers.compression import DAMAGE, Broken, refuse_pointer, unchanged
from codex_ml.ingest.readers.table_rows import RowSpan, damaged, documents, file_shares, parts_of, wrong_columns
from codex_ml.ingest.readers.tasks import Context, ReadTask

STATE_BYTES = 4 << 20  # of state.json and dataset_dict.json; state.json names each Arrow file


@dataclass(frozen=True)
class ArrowTask(ReadTask):
    """Some rows of one Arrow file."""

    part: RowSpan

    def read(self) -> Iterator[Document | Refused]:
        """One document per row."""
        with unchanged(Path(self.context.path)):
            yield from documents(_batches(self.context.path), self.part, 0, self.context)


def plan_dataset(folder_context: Context) -> Iterator[ArrowTask | Refused]:
    """Cut the Arrow files into tasks of about 16 MiB of rows.

    A damaged file is refused as a whole, so all of its values are checked first.

    Raises:
        UserError: when it is not such a folder, or its state.json names files outside it.
    """
    folder, rows = Path(folder_context.path), 0
    for name in _names(folder):
        path = folder / name
        context = replace(folder_context, path=str(path))
        try:
            with path.open("rb") as raw:
                refuse_pointer(raw)
            parts = _proved(str(path), context)
        except Broken as error:
            parts = reason_of(error)
        except DAMAGE as error:
            with naming(path):
                parts = damaged(error, "Arrow")
        if isinstance(parts, str):
            yield context.refused(None, parts)
            continue
        for part, share in zip(parts, file_shares(path.stat().st_size, parts), strict=True):
            rows += part.count
            yield ArrowTask(context, share, part)
    if not rows:
        yield replace(folder_context, path=str(folder / "state.json")).refused(None, "has no rows", bad=False)


def _names(folder: Path) -> list[str]:
    if (folder / "dataset_dict.json").is_file():
        found = read_json(folder / "dataset_dict.json", most=STATE_BYTES)
        splits = found.get("splits") if isinstance(found, dict) else None
        present = ", ".join(map(str, splits)) if isinstance(splits, list) else "none"
        raise UserError(f"ingest.sources: {folder} holds the splits {present}; name one: {folder}/train")
    state: Any = read_json(folder / "state.json", most=STATE_BYTES)
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise UserError(
            f"{folder}/state.json lists no _data_files; save the data set again with save_to_disk"
        ) from None
    for name in ("state.json", *names):
        path = folder / name
        if "\0" in name or Path(name).name != name or not path.is_file() or stands_for(path).is_symlink():
            raise UserError(f"{folder}/state.json names {name!r}, which is not a file in that folder")
        if is_left_out(path):
            raise UserError(f"{path} is in no hash: DVC leaves it out (.dvcignore); remove that pattern")
    return names


def _proved(path: str, context: Context) -> list[RowSpan] | str:
    """Check every value of a file and cut its rows into parts; or return the reason why its columns are refused."""

    def checked() -> Iterator[pa.RecordBatch]:
        for batch in _batches(path):
            batch.validate(full=True)
            yield batch

    first = next(_batches(path), None)
    problem = "" if first is None else wrong_columns(first.schema, context)
    return problem or list(parts_of(checked()))


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream, as datasets writes it, or of an Arrow file with a footer."""
    with pa.OSFile(path) as source:  # not a memory map: the process would die if the file became shorter
        try:
            reader = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            source.seek(0)
            random = pa.ipc.open_file(source)
            yield from (random.get_batch(number) for number in range(random.num_record_batches))
            return
        yield from reader
