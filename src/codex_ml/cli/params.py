"""The schema of params.yaml: every knob with its default, unit and bounds; one module for each part of the pipeline.

A key of a stage's section changes bytes, so that stage depends on it. A key that changes no byte lives in `runtime`,
which no stage depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, model_validator

from codex_ml.core.config import BASE_FOLDER, Positive, Section
from codex_ml.evaluate.config import Evaluate, Report, SafetyAudit
from codex_ml.pack.config import Canaries, Pack, Tokenizer
from codex_ml.split.config import Benchmark, Fetch, Fields, Ingest, Kind, Limits, Quality, Source, Split
from codex_ml.train.config import EarlyStopping, Lora, Model, Train

__all__ = [
    "BASE_FOLDER",
    "Benchmark",
    "Canaries",
    "EarlyStopping",
    "Evaluate",
    "Fetch",
    "Fields",
    "Ingest",
    "Limits",
    "Lora",
    "Model",
    "Pack",
    "Params",
    "Quality",
    "Report",
    "Runtime",
    "SafetyAudit",
    "Section",
    "Source",
    "Split",
    "Tokenizer",
    "Train",
]
UINT16_TOKENS = 2**16
OWN_KEYS = ("gpt2", "gpt_neox", "t5")  # architectures in which no two heads share keys and values
RECORDS = ("jsonl", "csv", "tsv", "parquet", "datasets")  # kinds of source that have fields; the others have files
# Keys that count for nothing while another key has one of these values.
WITHOUT_EFFECT = (
    ("split.fold", "split.folds", (0,)),
    ("split.contaminated", "split.benchmarks", ((),)),
    ("pack.canaries.each", "pack.canaries.repetitions", ((),)),
    ("pack.canaries.controls", "pack.canaries.repetitions", ((),)),
    ("model.lora.alpha", "model.lora.rank", (0,)),
    ("model.lora.dropout", "model.lora.rank", (0,)),
    ("model.lora.targets", "model.lora.rank", (0,)),
    ("model.lora.rslora", "model.lora.rank", (0,)),
    ("model.lora.dora", "model.lora.rank", (0,)),
    ("train.decay_steps", "train.schedule", ("cosine", "linear", "constant", "inverse_sqrt")),
    ("train.min_lr_ratio", "train.schedule", ("constant",)),
    ("train.early_stopping.min_delta", "train.early_stopping.patience", (None,)),
)
FOR_FILES = tuple(kind for kind in get_args(Kind) if kind not in RECORDS)
# The same of a source.
SOURCE_WITHOUT_EFFECT = (
    ("revision", "kind", tuple(kind for kind in get_args(Kind) if kind != "git")),
    ("gitignore", "kind", tuple(kind for kind in get_args(Kind) if kind != "files")),
    ("glob", "kind", RECORDS),
    ("include", "kind", RECORDS),
    ("exclude", "kind", RECORDS),
    ("group", "kind", RECORDS),
    ("fields", "kind", FOR_FILES),
    ("max_bad_records", "bad_records", ("fail",)),
)


def without_effect(section: BaseModel, table: tuple[tuple[str, str, tuple[Any, ...]], ...]) -> Iterator[str]:
    """What has another value than its default and counts for nothing; one message for each."""
    for key, other, off in table:
        value, default = _value(section, key)
        switch, _ = _value(section, other)
        if switch in off and value != default:
            written = "its default" if isinstance(default, BaseModel) else f"{_written(default)}, its default"
            yield f"{key} has no effect with {other} {_written(switch)}; remove it, or write {written}"


def _value(section: BaseModel, key: str) -> tuple[Any, Any]:
    """A value and its default."""
    *above, leaf = key.split(".")
    for name in above:
        section = getattr(section, name)
    return getattr(section, leaf), type(section).model_fields[leaf].default


def _written(value: Any) -> str:
    """As YAML spells it."""
    return value if isinstance(value, str) and value else json.dumps(value)


class Runtime(Section):
    """`runtime`: what changes no byte of the result; no stage depends on it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    progress: Literal["auto", "plain", "off"] = Field("auto", description="auto: a bar on a terminal, lines elsewhere")
    workers: int = Field(0, ge=0, le=1024, description="Processes of ingest and split, 0 for one a core")
    processes: int = Field(
        1,
        ge=0,
        le=1024,
        description="Processes of train on this machine, one a GPU or a share of the cores; 0: per GPU",
    )
    sharding: Literal["none", "full"] = Field(
        "none", description="full: each process holds a share of weights, gradients and optimizer (FSDP)"
    )
    keep_checkpoints: Positive = Field(2, description="Complete checkpoints kept while training")
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="More places for the curves, all on this machine; each needs the extra of its name"
    )
    prometheus_port: int = Field(0, ge=0, le=65535, description="Port on 127.0.0.1 for metrics while training; 0: none")


class Params(Section):
    """params.yaml, whole."""

    seed: int = Field(1, ge=0, lt=2**32, description="Seed of initialisation, data order, sampling and bootstrap")
    fetch: Fetch = Fetch()
    ingest: Ingest = Ingest()
    split: Split = Split()
    tokenizer: Tokenizer = Tokenizer()
    pack: Pack = Pack()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    safety_audit: SafetyAudit = SafetyAudit()
    report: Report = Report()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _every_value_counts(self) -> Params:
        for message in without_effect(self, WITHOUT_EFFECT):
            raise ValueError(message)
        for number, source in enumerate(self.ingest.sources):
            for message in without_effect(source, SOURCE_WITHOUT_EFFECT):
                raise ValueError(f"ingest.sources.{number}.{message}")
        return self

    @model_validator(mode="after")
    def _rows_are_shared(self) -> Params:
        rows = self.train.micro_batch_size * self.train.accumulation
        if self.runtime.processes and rows % self.runtime.processes:
            raise ValueError(
                f"runtime.processes {self.runtime.processes} cannot share the {self.train.micro_batch_size} x "
                f"{self.train.accumulation} rows of a step evenly; choose a divisor of micro_batch_size x accumulation"
            )
        return self

    @model_validator(mode="after")
    def _shards_can_be_trained(self) -> Params:
        if self.runtime.sharding == "none":
            return self
        for found, instead in (
            (self.train.compile == "on" and "train.compile on", "auto or off"),
            (self.train.precision == "fp16" and "train.precision fp16", "bf16, fp32 or auto"),
            (self.model.quantization != "none" and f"model.quantization {self.model.quantization}", "none"),
        ):
            if found:
                raise ValueError(f"runtime.sharding full does not go with {found}; use {instead}")
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Params:
        if self.model.path:  # its positions stand in its own folder; train and safety_audit compare
            return self
        if self.pack.seq_len > self.model.max_positions:
            raise ValueError(
                f"pack.seq_len {self.pack.seq_len} is longer than the model's positions; "
                f"raise model.max_positions ({self.model.max_positions}) or lower pack.seq_len"
            )
        if self.pack.dtype == "uint16" and self.tokenizer.vocab_size > UINT16_TOKENS:
            raise ValueError(
                f"tokenizer.vocab_size {self.tokenizer.vocab_size} does not fit pack.dtype uint16 "
                f"(at most {UINT16_TOKENS} tokens); use uint32 or auto"
            )
        window = self.safety_audit.prefix_tokens + self.safety_audit.suffix_tokens
        if window > self.model.max_positions:
            raise ValueError(
                f"safety_audit.prefix_tokens + suffix_tokens is {window}, longer than model.max_positions "
                f"{self.model.max_positions}"
            )
        if self.safety_audit.sample_tokens > self.model.max_positions:
            raise ValueError(
                f"safety_audit.sample_tokens {self.safety_audit.sample_tokens} is longer than model.max_positions "
                f"{self.model.max_positions}"
            )
        return self

    @model_validator(mode="after")
    def _heads_share_keys_where_they_can(self) -> Params:
        model = self.model
        if not model.path and model.architecture in OWN_KEYS and model.kv_heads not in (0, model.heads):
            raise ValueError(f"model.kv_heads: {model.architecture} has keys and values for each head; use 0")
        return self

    @model_validator(mode="after")
    def _encoder_decoder_has_its_rows(self) -> Params:
        if not self.model.is_encoder_decoder:
            return self
        if self.pack.layout != "padded":
            raise ValueError(
                "pack.layout packed puts several documents into a row, and model.architecture t5 reads one; use padded"
            )
        if self.train.compile == "on":
            raise ValueError(
                "train.compile on needs batches of one shape, and those of model.architecture t5 have the shape of "
                "their longest beginning; use auto or off"
            )
        return self
