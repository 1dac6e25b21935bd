"""What every task of an evaluation gets: the model, the data, the settings, and where its tables go.

Used by: the tasks of evaluate, and the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.metrics.registry import Metrics
from codex_ml.modeling.pack_files import PLAIN, LossOn, PromptTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer

Track = Callable[[Iterable[Any], str, int, str], Iterator[Any]]  # (items, what, total, unit), as `Stage.track`


@dataclass(frozen=True)
class Subject:
    """The model that is asked.

    Attributes:
        length: tokens per window.
        loss_on: what of a record is scored, as it was trained.
        precision: of the products of matrices; "bf16" as training does it.
        digest: SHA-256 of its folder or file.
        compile: whether the forward pass of full windows is compiled.
        template: how records with a prompt become text, as it was trained.
    """

    model: PreTrainedModel
    tokenizer: TextTokenizer
    length: int
    loss_on: LossOn
    precision: Literal["fp32", "bf16"]
    digest: str
    compile: bool = False
    template: PromptTemplate = PLAIN


@dataclass(frozen=True)
class EvaluationData:
    """What the model is asked about.

    Attributes:
        test: Parquet file of the held-out documents.
        train: Parquet file of the documents that the n-gram baseline learns from; None for no baseline.
        redact: replaces what the text policy forbids in a text that the model wrote, before it is stored.
        samples: file of programs to run for the one benchmark, instead of generated ones; see evaluate/samples.py.
    """

    test: Path
    train: Path | None
    redact: Callable[[str], str]
    samples: Path | None = None


@dataclass(frozen=True)
class Job:
    """One evaluation, as a task sees it.

    Attributes:
        results, plots: folders for the tables of the tasks and for the small tables of pictures; they exist.
        track: iterates over items and shows the progress.
    """

    subject: Subject
    data: EvaluationData
    settings: Evaluate
    metrics: Metrics
    seed: int
    results: Path
    plots: Path
    track: Track
