"""The shapes of what the stages write, as far as the report needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

Point = tuple[int, float]  # (global_step, value)


class Shape(BaseModel):
    """A JSON object of which we need some keys; numbers are finite and nothing is converted."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Interval(Shape):
    low: float
    high: float


class Intervals(Shape):
    token_accuracy: Interval
    bits_per_byte: Interval | None = None
    bits_per_byte_minus_zlib: Interval | None = None


class Lossy(Shape):
    """Test documents that the tokenizer does not give back, and what that means."""

    documents: int
    reason: str


class Bits(Shape):
    """What is there together or not at all: bits per byte, their interval, and that of their difference to zlib's."""

    value: float
    interval: Interval
    minus_zlib: Interval


class Evaluation(Shape):
    """reports/evaluate/details.json; a perplexity too large for a double is absent, bits per byte where `lossy`."""

    zlib_bits_per_byte: float
    bits_per_byte: float | None = None
    lossy: Lossy | None = None
    chats: int = 0
    token_accuracy: float
    documents: int
    bytes: int
    tokens: int
    interval: Intervals
    perplexity: float | None = None

    @model_validator(mode="after")
    def _bits_or_why_not(self) -> Evaluation:
        parts = (self.bits_per_byte, self.interval.bits_per_byte, self.interval.bits_per_byte_minus_zlib)
        if [part is None for part in parts] != [self.lossy is not None] * len(parts):
            raise ValueError("bits_per_byte with both its intervals, or lossy, is expected")
        return self

    @property
    def bits(self) -> Bits | None:
        """Bits per byte; None where the tokenizer loses text."""
        value, interval, minus = self.bits_per_byte, self.interval.bits_per_byte, self.interval.bits_per_byte_minus_zlib
        if value is None or interval is None or minus is None:
            return None
        return Bits(value=value, interval=interval, minus_zlib=minus)


class Part(Shape):
    documents: int
    megabytes: float


class Leakage(Shape):
    evicted: int
    quarantined: int
    near_cross: int
    random_split_leak: float


class SplitContents(Shape):
    """What one split consists of: documents by licence and language."""

    documents: int
    bytes: int
    groups: int
    licences: dict[str, int]
    languages: dict[str, int]


class SplitParts(Shape):
    train: SplitContents
    val: SplitContents
    test: SplitContents


class Policy(Shape):
    """What the text policy did; `findings` counts by "rule: action"."""

    state: str
    findings: dict[str, int]
    documents_redacted: int


class BenchmarkNumbers(Shape):
    files: list[str]
    items_found: int
    documents: int
    too_short_to_check: list[str]


class Manifest(Shape):
    """reports/split/manifest.json; `dropped` counts documents by reason."""

    splits: SplitParts
    dropped: dict[str, int]
    policy: Policy
    benchmarks: BenchmarkNumbers


class Hit(Shape):
    """One line of data/splits/findings.ndjson."""

    source: str
    path: str
    rule: str
    action: str
    line: int
    placeholder: str


class SplitNumbers(Shape):
    """reports/split/metrics.json."""

    train: Part
    val: Part
    test: Part
    leakage: Leakage


class IngestNumbers(Shape):
    documents: int
    megabytes: float
    refused: int


class TokenizerNumbers(Shape):
    vocab_size: int
    bytes_per_token: float
    lossless: float  # share of all documents that decode to their own text


class Stream(Shape):
    documents: int
    tokens: int
    targets: int


class PackNumbers(Shape):
    train: Stream
    val: Stream
    test: Stream


class TrainNumbers(Shape):
    step: int
    best_step: int
    best_val_loss: float


class ExtractionNumbers(Shape):
    """One row of the extraction table; without windows there is no rate."""

    windows: int
    extracted: int
    trivial: int
    token_share: float
    rate: float | None = None
    low: float | None = None
    high: float | None = None


class Extractions(Shape):
    members: ExtractionNumbers
    held_out: ExtractionNumbers
    control: ExtractionNumbers


class AuditNumbers(Shape):
    extraction: Extractions
    secrets: dict[str, int]


class Gate(Shape):
    name: str
    status: str
    found: str
    allowed: str


class Finding(Shape):
    """Where a secret stands; the value is nowhere in our files."""

    rule: str
    severity: str
    source: str
    path: str
    line: int


class DocumentScore(Shape):
    bytes: int
    nll: float  # nats
    zlib_bits: int

    @property
    def bits_per_byte(self) -> float:
        return self.nll / math.log(2) / self.bytes


class Sample(Shape):
    text: str


class Base(Shape):
    """The model that was trained on: folder or file, and the hash of what it holds."""

    path: str
    sha256: str


class Adapters(Shape):
    """LoRA: matrices of `rank` beside `modules` modules, `trained` parameters in all."""

    rank: int
    alpha: float
    modules: int
    trained: int


class TrainedModel(Shape):
    """What the model is; `positions` is None where they are relative, `base` from scratch."""

    architecture: str
    encoder_decoder: bool
    layers: int
    hidden_size: int
    heads: int
    positions: int | None
    base: Base | None
    lora: Adapters | None
    quantization: str


class UsedHardware(Shape):
    device: str
    precision: str
    compile: bool


class Training(Shape):
    """models/model/training.json."""

    global_step: int
    rows_a_step: int
    seq_len: int
    model: TrainedModel
    tokenizer: str  # what it is, such as "byte-level BPE"
    hardware: UsedHardware


class Hashes(Shape):
    sha256: str
    size: int


class Environment(Shape):
    python: str
    machine: str
    threads: int
    packages: dict[str, str | None]


class Record(Shape):
    """reports/<stage>/lineage.json."""

    stage: str
    command: str
    params: dict[str, Any]
    deps: dict[str, Hashes]
    environment: Environment

    @property
    def data(self) -> dict[str, Hashes]:
        return {path: hashes for path, hashes in self.deps.items() if not path.endswith(".py")}

    @property
    def code(self) -> dict[str, Hashes]:
        return {path: hashes for path, hashes in self.deps.items() if path.endswith(".py")}


@dataclass(frozen=True)
class SourceScore:
    """One row of reports/evaluate/by_source.csv; no bits per byte of the model where the tokenizer loses text."""

    source: str
    bits_per_byte: float | None
    zlib_bits_per_byte: float
    documents: int
