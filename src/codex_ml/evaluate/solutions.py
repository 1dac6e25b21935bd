"""The likelihood of the reference solutions of a benchmark, each after its prompt.

Bits per byte of the solutions falls long before the first task is solved, so it says something where pass@1 is zero.
Used by: the task `code` of evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codex_ml.core.errors import CheckFailed
from codex_ml.documents.document import Document
from codex_ml.evaluate.benchmark_files import CodeTask
from codex_ml.evaluate.documents import scoring_of
from codex_ml.evaluate.job import Job


@dataclass(frozen=True, slots=True)
class SolutionScore:
    """The likelihood of one reference solution.

    Attributes:
        nll: sum of -ln p of its tokens, nats. The END after it does not count: a program goes on after a function.
        bytes: of the solution in UTF-8.
        lossless: whether the tokenizer gives the solution back.
    """

    nll: float
    tokens: int
    bytes: int
    lossless: bool


def solution_scores(job: Job, tasks: Sequence[CodeTask]) -> Iterator[SolutionScore]:
    """Score the reference solution of each task as the completion of a record is scored, without the END.

    Raises:
        CheckFailed: when a likelihood is not a finite number.
    """
    import math

    from codex_ml.inference.likelihood import score
    from codex_ml.modeling.examples import Scorable, scorables

    subject, end = job.subject, job.subject.tokenizer.end
    items = []
    for item in scorables(map(_document, tasks), subject.tokenizer, loss_on="completions", length=subject.length):
        assert isinstance(item, Scorable), "a prompt and a solution that are not empty have tokens"
        scored = item.scored.copy()
        scored[-1] &= item.tokens[-1] != end
        items.append(replace(item, scored=scored))
    for task, item, found in zip(tasks, items, score(subject.model, items, scoring_of(job)), strict=True):
        if not math.isfinite(found.nll):
            raise CheckFailed(
                f"the model gives the solution of {task.task_id} a likelihood of {found.nll:g}: its weights or its "
                "activations are not finite; train it again with a lower learning rate, or use evaluate.precision fp32"
            )
        yield SolutionScore(found.nll, found.tokens, len(item.text.encode("utf-8")), item.lossless)


def _document(task: CodeTask) -> Document:
    return Document(
        source=task.form,
        path="",
        id=task.task_id,
        group="",
        licence="unknown",
        language="python",
        prompt=task.prompt,
        completion=task.reference,
    )
