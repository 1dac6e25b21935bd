"""Evaluate a model: one function per task, then the numbers of all tasks in one result folder.

Used by: stages/evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from codex_ml.core.hashing import hash_path
from codex_ml.core.io import atomic_folder, write_json
from codex_ml.core.plugin_lock import code_digest
from codex_ml.core.publication import publishing
from codex_ml.evaluate.baseline import compare_with, open_baseline, write_compared
from codex_ml.evaluate.completions import completions_task
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.documents import documents_task
from codex_ml.evaluate.executed_code import code_tasks
from codex_ml.evaluate.job import EvaluationData, Job, Subject, Track
from codex_ml.evaluate.metrics.registry import listed_name, load_metrics
from codex_ml.inference.evaluate_files import (
    CODE,
    COMPLETIONS,
    DETAILS,
    DOCUMENTS,
    METRICS,
    PLOTS,
    RESULTS,
    Evaluation,
    PlugIn,
    TaskResult,
    table_stem,
)

# Each task returns its results by name: {"documents": ...}, {"code/HumanEval": ...}; {} where it is switched off.
Task = Callable[[Job], dict[str, TaskResult]]
TASKS: tuple[Task, ...] = (documents_task, completions_task, code_tasks)

COMPARED = {
    DOCUMENTS: ("bits_per_byte", "zlib_bits_per_byte", "perplexity", "token_accuracy"),
    COMPLETIONS: ("exact_match_stripped", "chrf"),
    CODE: ("pass_at_1", "pass_at_10", "pass_at_100", "solution_bits_per_byte"),
}
DIGITS = 6  # metrics are compared across commits; further digits depend on the rounding of the hardware


def evaluate(
    subject: Subject, data: EvaluationData, settings: Evaluate, out: Path, *, seed: int, track: Track
) -> Evaluation:
    """Run all tasks and write a result folder, of which each text passes `data.redact`.

    Args:
        out: gets details.json, metrics.json, and the folders `results` and `plots`.
        seed: of the intervals and of generated text.
        track: see `Job`.
    """
    with publishing(data.redact):
        return _evaluate(subject, data, settings, out, seed=seed, track=track)


def _evaluate(
    subject: Subject, data: EvaluationData, settings: Evaluate, out: Path, *, seed: int, track: Track
) -> Evaluation:
    metrics, baseline = load_metrics(settings.metrics), open_baseline(settings, data.test)
    with atomic_folder(out / RESULTS) as results, atomic_folder(out / PLOTS) as plots:
        job = Job(subject, data, settings, metrics, seed, results, plots, track)
        tasks: dict[str, TaskResult] = {}
        for task in TASKS:
            tasks |= task(job)
        write_compared(plots, [])
    failed = [f"{listed_name(failure)}: {failure.why}" for failure in metrics.failures.values()]
    found = Evaluation(
        model=subject.digest,
        data=hash_path(data.test).sha256,
        seed=seed,
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
        tasks=tasks,
        plug_ins=[
            PlugIn(name=p.name, distribution=p.distribution, version=p.version, sha256=code_digest("metrics", p.name))
            for p in metrics.plugins.values()
        ],
        notes=[*metrics.messages, *failed],
    )
    found.write(out / DETAILS)
    write_json(out / METRICS, compared_numbers(found))
    if baseline:
        compare_with(baseline, out, settings, seed)
    return found


def compared_numbers(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers for metrics.json, which `dvc metrics diff` compares: those of documents at the top level.

    Those of each other task that compares any are below its name.
    """
    documents = evaluation.documents
    found: dict[str, Any] = _numbers(documents, COMPARED[DOCUMENTS])
    if documents.lossy:
        found["lossy"] = documents.lossy.as_json()
    others = {name: task for name, task in evaluation.tasks.items() if name != DOCUMENTS}
    below = {name: _numbers(task, COMPARED.get(table_stem(name), ())) for name, task in others.items()}
    return {**found, "documents": documents.items, **{name: numbers for name, numbers in below.items() if numbers}}


def _numbers(task: TaskResult, names: tuple[str, ...]) -> dict[str, float]:
    values = {name: task.metrics[name].value for name in names if name in task.metrics}
    return {name: round(value, DIGITS) for name, value in values.items() if value is not None}


def headlines(evaluation: Evaluation) -> Iterator[str]:
    """What the log says at the end, line by line."""
    numbers = compared_numbers(evaluation)
    yield _likelihood(numbers)
    for name, task in evaluation.tasks.items():
        if task.lossy:
            yield f"WARNING: {task.lossy.reason}"
        if name in numbers and name != DOCUMENTS:
            shown = ", ".join(f"{metric} {value}" for metric, value in numbers[name].items())
            yield f"{name}: {shown} ({task.items} items)"
        yield from task.notes


def _likelihood(numbers: dict[str, Any]) -> str:
    if "bits_per_byte" in numbers:
        zlib = f", zlib {numbers['zlib_bits_per_byte']}" if "zlib_bits_per_byte" in numbers else ""
        return f"{numbers['bits_per_byte']} bits per byte on test{zlib}"
    if "perplexity" in numbers:
        return f"perplexity {numbers['perplexity']} per token on test, no bits per byte"
    return f"{numbers['documents']} documents scored, no bits per byte"
