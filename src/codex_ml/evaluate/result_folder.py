"""Read a result folder: details.json and the tables of its tasks, checked against each other.

Used by: evaluate.comparison, `codex-ml compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, one_line, raise_disk_error
from codex_ml.core.io import read_json
from codex_ml.core.record import parse_record
from codex_ml.inference.comparison_files import ComparedSide
from codex_ml.inference.evaluate_files import DETAILS, RESULTS, Evaluation, TaskResult, table_stem

RECORD = "lineage.json"
AGAIN = "copy the whole folder again, or make it anew with `dvc repro evaluate`"
KEYS = ("item", "content", "unit")
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
            rows = np.flatnonzero((self._all_texts([BENCHMARK])[BENCHMARK] == benchmark).to_numpy())
        else:
            rows = np.arange(self._read([]).num_rows)
        if len(rows) != self.result.items:
            raise UserError(
                f"{self.file} has {len(rows)} rows of {self.task}, but {DETAILS} beside it says {self.result.items}: "
                f"the files are of two runs; {AGAIN}"
            )
        return rows.astype(np.int64)

    def keys(self) -> pd.DataFrame:
        """The text columns item, content and unit; two documents split at other places have other contents."""
        self._refuse_missing(KEYS)
        keys = self.texts((*KEYS, *SPLIT))
        for name in SPLIT:
            if name in keys:
                keys["content"] += " " + keys[name]
        return keys

    def texts(self, names: Sequence[str]) -> pd.DataFrame:
        """Text columns, one row per row of the task; names that the table lacks are left out."""
        return self._all_texts(names).iloc[self.rows].reset_index(drop=True)

    def _all_texts(self, names: Sequence[str]) -> pd.DataFrame:
        table = self._read([name for name in names if name in self._schema.names])
        try:
            texts = {name: table.column(name).cast(pa.large_string()).fill_null("") for name in table.column_names}
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{self.file}: a column of {', '.join(names)} does not hold texts; {AGAIN}") from None
        return pd.DataFrame({name: column.to_pandas() for name, column in texts.items()})

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Number columns, (n, len(names)).

        Raises:
            UserError: naming a column that is missing or does not hold numbers.
        """
        self._refuse_missing(names)
        table = self._read(list(names))
        try:
            columns = [table.column(name).cast(pa.float64()).to_numpy()[self.rows] for name in names]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{self.file}: a column of {', '.join(names)} does not hold numbers; {AGAIN}") from None
        return np.stack(columns, axis=1)

    def _refuse_missing(self, names: Sequence[str]) -> None:
        if missing := [name for name in names if name not in self._schema.names]:
            raise UserError(f"{self.file} has no column {missing[0]}; {AGAIN}")

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._opened(lambda file: file.schema_arrow)

    def _read(self, names: list[str]) -> pa.Table:
        return self._opened(lambda file: file.read(columns=names))

    def _opened(self, use: Any) -> Any:
        import pyarrow.parquet as pq

        if not self.file.is_file():
            raise UserError(f"{self.file} is missing, so the result is not whole; {AGAIN}")
        try:
            with pq.ParquetFile(self.file) as file:
                return use(file)
        except (pa.ArrowException, OSError) as error:
            raise_disk_error(error)
            raise UserError(f"{self.file} is damaged ({one_line(error)}); {AGAIN}") from None
