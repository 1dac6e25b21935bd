"""Read what the report shows of an evaluation beside the values of its metrics.

Used by: report.facts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from codex_ml.core.errors import UserError
from codex_ml.documents.document import opened
from codex_ml.inference.code_files import SAMPLES, JudgedSample
from codex_ml.inference.comparison_files import COMPARISON, Comparisons
from codex_ml.inference.evaluate_files import COMPLETIONS, Evaluation, table_stem
from codex_ml.report.input_files import Find, existing

EVALUATE = "reports/evaluate"
SHOWN = 4  # generated texts, and programs, that the page shows

T = TypeVar("T")


@dataclass(frozen=True)
class PartScore:
    """Bits per byte of a part of the test documents: one row of plots/by_source.csv or plots/by_length.csv.

    Attributes:
        bits_per_byte: None if the tokenizer loses text; each is None if that metric was not chosen.
        low, high: its interval; None with too few units.
        ngram_bits_per_byte: None without that baseline.
    """

    name: str
    documents: int
    bits_per_byte: float | None
    zlib_bits_per_byte: float | None
    low: float | None = None
    high: float | None = None
    ngram_bits_per_byte: float | None = None


@dataclass(frozen=True)
class SizeScore:
    """Bits per byte of one test document beside its size in bytes of UTF-8."""

    bytes: int
    bits_per_byte: float
    zlib_bits_per_byte: float


@dataclass(frozen=True)
class ConfidenceBin:
    """One row of plots/calibration.csv: predictions of about the same confidence."""

    confidence: float
    accuracy: float
    tokens: int


@dataclass(frozen=True)
class CompletedDocument:
    """What the model wrote after the begin of a held-out document; redacted by the text policy.

    Attributes:
        finished: end, stop or length.
        edit_similarity: to the document's own text, from 0 to 1; None if that metric was not chosen.
    """

    source: str
    path: str
    split_at: str
    finished: str
    output: str
    edit_similarity: float | None


@dataclass(frozen=True)
class ResultTables:
    """The tables of a result folder, as far as the report shows them.

    Attributes:
        lengths: by length of the document, shortest first.
        completed, programs: the first `SHOWN` rows.
        compared: the comparison with `evaluate.compare_to`; None where that is empty.
    """

    sources: tuple[PartScore, ...]
    lengths: tuple[PartScore, ...]
    documents: tuple[SizeScore, ...]
    calibration: tuple[ConfidenceBin, ...]
    completed: tuple[CompletedDocument, ...]
    programs: tuple[JudgedSample, ...]
    compared: Comparisons | None


def load_tables(find: Find, evaluation: Evaluation) -> ResultTables:
    """Read the tables.

    Args:
        find: see `codex_ml.report.facts.load_facts`.

    Raises:
        UserError: when one is missing or does not have the expected form.
    """

    def result(name: str) -> Path:
        return existing(find, f"{EVALUATE}/results/{name}", "evaluate")

    stems = {table_stem(task) for task in evaluation.tasks}
    compared = find(f"{EVALUATE}/results") / COMPARISON
    return ResultTables(
        sources=_rows(find, "by_source.csv", lambda row: _part(row, "source")),
        lengths=_rows(find, "by_length.csv", lambda row: _part(row, "length")),
        documents=_sizes(result("documents.parquet")),
        calibration=_rows(find, "calibration.csv", _bin),
        completed=_completed(result("completions.parquet")) if COMPLETIONS in stems else (),
        programs=tuple(islice(JudgedSample.read_lines(result(SAMPLES)), SHOWN)) if "code" in stems else (),
        compared=_one(Comparisons.read(compared), compared) if compared.exists() else None,
    )


def _one(compared: Comparisons, file: Path) -> Comparisons:
    if len(compared.comparisons) != 1:
        raise _other_form(file, ValueError(f"{len(compared.comparisons)} comparisons instead of one"))
    return compared


def _rows(find: Find, name: str, convert: Callable[[Mapping[str, str]], T]) -> tuple[T, ...]:
    path = f"{EVALUATE}/plots/{name}"
    file = existing(find, path, "evaluate")
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            return tuple(convert(row) for row in csv.DictReader(lines))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise _other_form(file, error) from None


def _other_form(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is not what evaluate writes ({error}); `dvc repro evaluate` makes it")


def _part(row: Mapping[str, str], name: str) -> PartScore:
    return PartScore(
        name=row[name],
        documents=int(row["documents"]),
        bits_per_byte=_optional(row["bits_per_byte"]),
        zlib_bits_per_byte=_optional(row["zlib_bits_per_byte"]),
        low=_optional(row["low"]),
        high=_optional(row["high"]),
        ngram_bits_per_byte=_optional(row["ngram_bits_per_byte"]),
    )


def _bin(row: Mapping[str, str]) -> ConfidenceBin:
    return ConfidenceBin(_number(row["confidence"]), _number(row["accuracy"]), int(row["tokens"]))


def _optional(text: str) -> float | None:
    return _number(text) if text else None


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _sizes(file: Path) -> tuple[SizeScore, ...]:
    """Bits per byte of each document that has bytes."""
    with opened(file) as table:
        try:
            columns = table.read(columns=["bytes", "nll", "zlib_bits"])
            rows = zip(*(columns.column(name).to_pylist() for name in ("bytes", "nll", "zlib_bits")), strict=True)
        except KeyError as error:
            raise _other_form(file, error) from None
    return tuple(SizeScore(int(size), nll / math.log(2) / size, bits / size) for size, nll, bits in rows if size)


def _completed(file: Path) -> tuple[CompletedDocument, ...]:
    texts, measured = ["source", "path", "split_at", "finished", "output"], "edit_similarity"
    with opened(file) as table:
        more = [measured] if measured in table.schema_arrow.names else []
        rows: list[dict[str, Any]] = []
        for batch in islice(table.iter_batches(SHOWN, columns=[*texts, *more], use_threads=False), 1):
            rows = batch.to_pylist()
    try:
        return tuple(
            CompletedDocument(**{name: row[name] for name in texts}, edit_similarity=row.get(measured)) for row in rows
        )
    except KeyError as error:
        raise _other_form(file, error) from None
