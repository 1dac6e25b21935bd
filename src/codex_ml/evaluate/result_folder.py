"""Read a result folder: details.json and the tables of its tasks, checked against each other.

Used by: evaluate.comparison, `codex-ml compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, one_line, raise_disk_error
from codex_ml.core.io import read_json
from codex_ml.core.record import parse_record
from codex_ml.evaluate.paired_items import ItemKeys, text_keys
from codex_ml.inference.comparison_files import ComparedSide
from codex_ml.inference.evaluate_files import DETAILS, RESULTS, Evaluation, TaskResult, table_stem

RECORD = "lineage.json"
AGAIN = "copy the whole folder again, or make it anew with `dvc repro evaluate`"
KEYS = ("item", "unit", "content")
BATCH = 4096  # rows
SPLIT = ("prompt", "reference")  # hashes of what the model was given and should have written, where a table has them
BENCHMARK = "benchmark"  # text column of the table that all benchmarks share


@dataclass(frozen=True)
class ResultFolder:
    """One evaluation result on disk.

    Attributes:
        side: how the comparison names the result.
        folder: where its files are.
        records: stage -> the record of its start, of those stages that led to the result and are known.
        notes: what is not known about the result, one sentence each.
    """

    side: ComparedSide
    folder: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.side.name

    @cached_property
    def evaluation(self) -> Evaluation:
        """Its details.json. Raises UserError where that is missing or damaged."""
        if not (self.folder / DETAILS).exists():
            raise UserError(f"{self.folder} has no {DETAILS}, so it is not a whole result; {AGAIN}")
        return Evaluation.read(self.folder / DETAILS)

    def table(self, task: str) -> TaskTable:
        """The rows of one task."""
        return TaskTable(self.folder / RESULTS / f"{table_stem(task)}.parquet", task, self.evaluation.tasks[task])


def result_at(name: str, folder: Path) -> ResultFolder:
    """A result folder with the record that lies in it.

    Raises:
        UserError: when the record is damaged.
    """
    side, file = ComparedSide(name=name, kind="folder"), folder / RECORD
    if not file.is_file():
        return ResultFolder(side, folder, notes=(f"{name} has no {RECORD}, so what it was made from is not compared",))
    record = parse_record(read_json(file), str(file))
    return ResultFolder(side, folder, {str(record.get("stage")): record})


@dataclass(frozen=True)
class TaskTable:
    """The rows of one task in its Parquet file. Columns are read when they are asked for."""

    file: Path
    task: str
    result: TaskResult

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(n,) the rows of this task in the file, ascending.

        Raises:
            UserError: when the number of rows is not that of details.json.
        """
        _, _, benchmark = self.task.partition("/")
        if benchmark:
            self._refuse_missing([BENCHMARK])
            names = (self._texts(batch, BENCHMARK) for batch in self._batches([BENCHMARK]))
            rows = np.flatnonzero([name == benchmark for batch in names for name in batch])
        else:
            rows = np.arange(sum(batch.num_rows for batch in self._batches([])))
        if len(rows) != self.result.items:
            raise UserError(
                f"{self.file} has {len(rows)} rows of {self.task}, but {DETAILS} beside it says {self.result.items}: "
                f"the files are of two runs; {AGAIN}"
            )
        return rows.astype(np.int64)

    def keys(self, name: str) -> ItemKeys:
        """What the items are paired by; two documents that were split at other places have other contents.

        Args:
            name: of the result, for messages.
        """
        self._refuse_missing(KEYS)
        split = [column for column in SPLIT if column in self._schema.names]
        parts = []
        for batch in self._batches([*KEYS, *split]):
            item, unit, *contents = (self._texts(batch, column) for column in (*KEYS, *split))
            content = map("\0".join, zip(*contents, strict=True))
            parts.append(
                pd.DataFrame({"item": text_keys(item), "unit": text_keys(unit), "content": text_keys(content)})
            )
        table = pd.concat(parts).iloc[self.rows] if parts else pd.DataFrame(columns=list(KEYS), dtype=np.uint64)
        return ItemKeys(name, table, lambda rows: [row["item"] for row in self.texts(["item"], rows)])

    def texts(self, names: Sequence[str], rows: Sequence[int]) -> list[dict[str, str]]:
        """Text columns of some rows of the task, in their order; "" for a column that the table lacks."""
        present, wanted = [name for name in names if name in self._schema.names], self.rows[list(rows)].tolist()
        found: dict[int, dict[str, str]] = {}
        start = 0
        for batch in self._batches(present):
            for row in set(wanted) & set(range(start, start + batch.num_rows)):
                one = batch.slice(row - start, 1)
                found[row] = dict.fromkeys(names, "") | {name: self._texts(one, name)[0] for name in present}
            start += batch.num_rows
        return [found[row] for row in wanted]

    def _texts(self, batch: pa.RecordBatch, name: str) -> list[str]:
        """A text column of a batch, "" for null."""
        try:
            texts: list[str] = batch.column(name).cast(pa.large_string()).fill_null("").to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{self.file}: column {name} does not hold texts; {AGAIN}") from None
        return texts

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Number columns, (n, len(names)).

        Raises:
            UserError: naming a column that is missing or does not hold numbers.
        """
        self._refuse_missing(names)
        parts = []
        for batch in self._batches(names):
            try:
                parts.append(
                    np.stack([batch.column(name).cast(pa.float64()).to_numpy(False) for name in names], axis=1)
                )
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise UserError(f"{self.file}: a column of {', '.join(names)} is not of numbers; {AGAIN}") from None
        return np.concatenate(parts)[self.rows] if parts else np.zeros((0, len(names)))

    def _refuse_missing(self, names: Sequence[str]) -> None:
        if missing := [name for name in names if name not in self._schema.names]:
            raise UserError(f"{self.file} has no column {missing[0]}; {AGAIN}")

    @cached_property
    def _schema(self) -> pa.Schema:
        with self._opened() as file:
            schema = file.schema_arrow
        if len(set(schema.names)) < len(schema.names):
            raise UserError(f"{self.file} has two columns of one name; {AGAIN}")
        return schema

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._opened() as file:
            yield from file.iter_batches(BATCH, columns=list(names))

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        if not self.file.is_file():
            raise UserError(f"{self.file} is missing, so the result is not whole; {AGAIN}")
        try:
            with pq.ParquetFile(self.file) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise_disk_error(error)
            raise UserError(f"{self.file} is damaged ({one_line(error)}); {AGAIN}") from None
