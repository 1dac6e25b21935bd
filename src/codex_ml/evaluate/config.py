"""The section `evaluate` of params.yaml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from codex_ml.core.bounds import MOST_SAMPLES, MOST_TOKENS
from codex_ml.core.config import BatchRows, ItemCount, Section, TokenCount

BENCHMARKS, BASELINES = Path("data/benchmarks"), Path("data/baselines")  # deps of the stage
BENCHMARK_ENDINGS = (".jsonl", ".jsonl.gz")
COOLEST = 1e-3  # as in `codex_ml.inference.sampling`, which needs more than a check of params.yaml loads
PENALTIES = (0.01, 100.0)  # a penalty divides logits; beyond a factor of 100, either way, it alone chooses the token
LONGEST_NGRAM = 8  # bytes; `codex_ml.evaluate.ngram` keeps those of an n-gram in one number


def _stops_are_texts(stop: tuple[str, ...]) -> tuple[str, ...]:
    if "" in stop:
        raise ValueError("an empty string is part of every text, so nothing would be generated; remove it")
    if any("\ufffd" in text for text in stop):
        raise ValueError("the character U+FFFD stands for bytes that are not text; remove it")
    return stop


def _greedy_or_warm(temperature: float) -> float:
    if 0 < temperature < COOLEST:
        raise ValueError(f"a temperature above 0 must be at least {COOLEST}, found {temperature:g}; 0 is greedy")
    return temperature


def _within_penalties(penalty: float) -> float:
    low, high = PENALTIES
    if not low <= penalty <= high:
        raise ValueError(
            f"expected {low:g} to {high:g}, found {penalty:g}; it divides logits, and a factor beyond 100 "
            "would decide alone; 1 means none"
        )
    return penalty


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := _repeated(values):
        raise ValueError(f"{twice} is listed twice; remove one")
    return values


def _repeated(values: Iterable[str | int]) -> str:
    """The first value that occurs more than once, "" for none."""
    return next((str(value) for value, count in Counter(values).items() if count > 1), "")


def benchmark_name(path: str) -> str:
    """The name of a benchmark in results: its file name without the ending.

    >>> benchmark_name("data/benchmarks/sample/HumanEval.jsonl.gz")
    'HumanEval'
    """
    name = Path(path).name
    return next((name.removesuffix(ending) for ending in reversed(BENCHMARK_ENDINGS) if name.endswith(ending)), name)


def refuse_equal_names(benchmarks: Iterable[str]) -> None:
    """Raise ValueError where two files of tasks have one name."""
    if twice := _repeated(map(benchmark_name, benchmarks)):
        raise ValueError(f"two files have the name {twice}, and results are named by it; rename one")


TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, description="Share of the probability; 1: no limit")]
Temperature = Annotated[
    float, Field(ge=0, le=100, allow_inf_nan=False, description="0: greedy"), AfterValidator(_greedy_or_warm)
]


class Completions(Section):
    """`evaluate.completions`: text that the model writes for held-out documents, compared with theirs."""

    documents: ItemCount = Field(64, description="Test documents that are completed; 0: none")
    split_at: Literal["line", "token", "function"] = Field(
        "line", description="Where a document is split into a prompt"
    )
    max_tokens: TokenCount = Field(64, description="Tokens generated per document, at most")
    temperature: Temperature = 0.0
    top_k: int = Field(0, ge=0, le=MOST_TOKENS, description="Only the k most probable tokens; 0: no limit")
    top_p: TopP = 1.0
    repetition_penalty: Annotated[float, AfterValidator(_within_penalties)] = Field(
        1.0,
        allow_inf_nan=False,
        description="Divides logits of tokens that are in the text, by at most 100 either way; 1: no penalty",
        json_schema_extra={"minimum": PENALTIES[0], "maximum": PENALTIES[1]},
    )
    stop: Annotated[tuple[str, ...], AfterValidator(_stops_are_texts), AfterValidator(_each_once)] = Field(
        (), max_length=100, description="Generation ends before the first of these strings"
    )


class Code(Section):
    """`evaluate.code`: how the tasks of the benchmarks are solved and run."""

    protocol: Literal["base", "chat"] = Field(
        "base", description="base: the model continues the code; chat: it answers through its chat template"
    )
    samples: int = Field(1, gt=0, le=MOST_SAMPLES, description="Programs generated per task")
    k: tuple[Annotated[int, Field(gt=0, le=MOST_SAMPLES)], ...] = Field(
        (1,), min_length=1, max_length=100, description="pass@k for each; at most samples"
    )
    max_tokens: TokenCount = Field(128, description="Tokens generated per program, at most")
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    cpu_seconds: float = Field(5.0, gt=0, le=3600, allow_inf_nan=False, description="CPU time of one program")
    memory_mb: int = Field(512, ge=64, le=1_000_000, description="Memory of one program, MB")
    sandbox: Literal["auto", "bwrap-system", "bwrap-wheel", "namespaces"] = Field(
        "auto", description="auto: the first of these that withstands the probe on this machine"
    )

    @model_validator(mode="after")
    def _samples_suffice(self) -> Code:
        if twice := _repeated(self.k):
            raise ValueError(f"k: {twice} is listed twice; remove one")
        if max(self.k) > self.samples:
            raise ValueError(f"k {max(self.k)} needs at least as many samples, found {self.samples}; raise samples")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"temperature 0 gives the same program {self.samples} times; use samples: 1, or a temperature above 0"
            )
        return self


class Evaluate(Section):
    """`evaluate`: scores on the test split, generated text, executed code, and their confidence intervals."""

    batch_size: BatchRows = Field(8, description="Windows per forward pass; the number affects the last bits")
    stride: int = Field(0, ge=0, le=MOST_TOKENS, description="New tokens per window; 0: disjoint windows")
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    ngram_order: int = Field(6, ge=0, le=LONGEST_NGRAM, description="Bytes of the n-gram baseline; 0: none")
    bootstrap: int = Field(1000, ge=100, le=1_000_000, description="Resamples of documents for the intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, allow_inf_nan=False)
    metrics: Annotated[tuple[str, ...], AfterValidator(_each_once)] = Field((), description="Names; []: all metrics")
    completions: Completions = Completions()
    benchmarks: Annotated[tuple[str, ...], AfterValidator(_each_once)] = Field(
        (), description="Files of programming tasks below data/benchmarks, .jsonl or .jsonl.gz"
    )
    code: Code = Code()
    compare_to: str = Field("", description="A folder of data/baselines: a copy of reports/evaluate of another model")

    @field_validator("benchmarks")
    @classmethod
    def _benchmarks_are_declared(cls, benchmarks: tuple[str, ...]) -> tuple[str, ...]:
        for path in benchmarks:
            if not _inside(path, BENCHMARKS):
                raise ValueError(
                    f"only files below {BENCHMARKS} are a dep of evaluate, found {path}; move the file there"
                )
            if not path.endswith(BENCHMARK_ENDINGS):
                raise ValueError(f"expected a name that ends in {' or '.join(BENCHMARK_ENDINGS)}, found {path}")
        refuse_equal_names(benchmarks)
        return benchmarks

    @field_validator("compare_to")
    @classmethod
    def _baseline_is_declared(cls, path: str) -> str:
        if path and not _inside(path, BASELINES):
            raise ValueError(f"only folders below {BASELINES} are a dep of evaluate; copy the folder there")
        return path


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder) and Path(path) != folder and ".." not in Path(path).parts
