"""Contracts of the files in which `evaluate` describes a model.

Used by: evaluate, which writes them; report, which reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from codex_ml.core.contract import Contract

DETAILS = "details.json"  # of a result folder, such as reports/evaluate
METRICS = "metrics.json"  # the numbers that people compare
RESULTS = "results"  # its folder of tables: <task>.parquet and <task>.ndjson, groups.csv and groups.parquet
PLOTS = "plots"  # its folder of small tables for pictures
PLOT_FILES = ("by_source.csv", "by_length.csv", "calibration.csv", "pass_at_k.csv", "compared.csv")
DOCUMENTS, COMPLETIONS, CODE = "documents", "completions", "code"


def code_task(benchmark: str) -> str:
    """The name of the task of one benchmark: code/HumanEval."""
    return f"{CODE}/{benchmark}"


def table_stem(task: str) -> str:
    """Name, without its ending, of the table that holds the rows of a task; all benchmarks share one."""
    return task.split("/")[0]


class MetricValue(Contract):
    """One number of a task.

    Attributes:
        value: None where it cannot be given; `why` says the reason.
        low, high: its confidence interval; None where there is none, and `why` says the reason.
        method: of the interval: the bootstrap, or the exact binomial one of Clopper and Pearson.
        units: number of independent units (documents or groups of documents, tasks) that it was measured on.
        signature: everything that the number depends on beside the model and the data.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: Literal["bootstrap", "exact", "score"] | None = None
    units: int
    signature: str
    higher_is_better: bool
    why: str | None = None

    @model_validator(mode="after")
    def _reason_is_given(self) -> MetricValue:
        if (self.low is None) != (self.high is None):
            raise ValueError("expected low and high, or neither")
        if (self.value is None or self.low is None) and not self.why:
            raise ValueError("expected `why` where value or interval is absent")
        return self


class LossyTexts(Contract):
    """Number of texts that the tokenizer does not reproduce, and why bits per byte is absent."""

    documents: int
    reason: str


class TaskResult(Contract):
    """Everything that one task measured.

    Attributes:
        items: rows of its table.
        units: independent units of them.
        settings: how it was measured, such as the length of the windows.
        metrics: by name.
        counts: whole numbers, such as the bytes of all documents.
        lossy: present if bits per byte is absent because the tokenizer loses text.
        notes: what was left out or failed, one sentence each.
    """

    task: str
    items: int
    units: int
    settings: dict[str, Any]
    metrics: dict[str, MetricValue]
    counts: dict[str, int] = Field(default_factory=dict)
    lossy: LossyTexts | None = None
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _bits_or_why_not(self) -> TaskResult:
        bits = self.metrics.get("bits_per_byte")
        if self.lossy and bits and bits.value is not None:
            raise ValueError("expected bits_per_byte or lossy, found both")
        return self


class PlugIn(Contract):
    """A metric that another package provides.

    Attributes:
        sha256: of its code; "" where it was not found, and in results of earlier versions.
    """

    name: str
    distribution: str
    version: str
    sha256: str = ""


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of the model, zlib's, and the difference of both."""

    model: MetricValue
    zlib: MetricValue
    difference: MetricValue


class Evaluation(Contract):
    """<result folder>/details.json.

    Attributes:
        model: SHA-256 of the model folder or file.
        data: SHA-256 of the file of test documents.
        seed: of the intervals and of generated text.
        tasks: by name: documents, completions, code/<benchmark>.
        plug_ins: metrics of other packages that were used.
        notes: such as plug-ins that failed to load.
    """

    written_by = "evaluate"

    model: str
    data: str
    seed: int
    bootstrap: int
    confidence: float
    tasks: dict[str, TaskResult]
    plug_ins: list[PlugIn] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @classmethod
    def of_folder(cls, folder: Path) -> Evaluation:
        """Read the details of a result folder; raises like `read`."""
        return cls.read(folder / DETAILS)

    @property
    def documents(self) -> TaskResult:
        """The likelihood of the test documents, which every evaluation has."""
        return self.tasks[DOCUMENTS]

    @property
    def bits(self) -> BitsPerByte | None:
        """Bits per byte of the test documents; None where there is none, such as with a tokenizer that loses text."""
        metrics = self.documents.metrics
        model, zlib = metrics.get("bits_per_byte"), metrics.get("zlib_bits_per_byte")
        difference = metrics.get("bits_per_byte_minus_zlib")
        if model is None or model.value is None or zlib is None or difference is None:
            return None
        return BitsPerByte(model, zlib, difference)

    @model_validator(mode="after")
    def _documents_are_scored(self) -> Evaluation:
        if DOCUMENTS not in self.tasks:
            raise ValueError(f"expected the task {DOCUMENTS}")
        return self
