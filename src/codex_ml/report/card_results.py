"""The evaluation in the model card: its section, and the results in the front matter, as the Hub reads them.

Used by: report.card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import safe_line
from codex_ml.inference.evaluate_files import CODE, COMPLETIONS, DOCUMENTS, MetricValue, table_stem
from codex_ml.report import evaluation_sentences as tasks
from codex_ml.report import evaluation_tables as scores
from codex_ml.report import sentences
from codex_ml.report.facts import Facts
from codex_ml.report.markdown import escape, markdown_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# The metrics of each kind of task that the metadata has; the card's tables have all.
SHOWN = {
    DOCUMENTS: ("bits_per_byte", "token_accuracy"),
    COMPLETIONS: ("exact_match_stripped", "edit_similarity", "chrf", "parse_rate"),
    CODE: ("solution_bits_per_byte",),  # and each pass@k
}


def eval_results(facts: Facts) -> list[EvalResult]:
    """Return what was measured, with interval, number of units and signature as arguments of the metric."""
    from huggingface_hub import EvalResult

    results = []
    for task, found in facts.evaluation.tasks.items():
        stem = table_stem(task)
        for name, metric in found.metrics.items():
            if metric.value is None or not (name in SHOWN.get(stem, ()) or name.startswith("pass_at_")):
                continue
            results.append(
                EvalResult(
                    task_type="text-generation",
                    **_dataset(task),
                    metric_type=name,
                    metric_name=scores.metric_label(name),
                    metric_value=metric.value,
                    metric_args=_arguments(facts, metric),
                )
            )
    return results


def _dataset(task: str) -> dict[str, Any]:
    if table_stem(task) == CODE:
        return {"dataset_type": "programming-tasks", "dataset_name": safe_line(task.partition("/")[2])}
    kind = "held-out-documents" if task == DOCUMENTS else "continued-held-out-documents"
    return {"dataset_type": kind, "dataset_name": "test split", "dataset_split": "test"}


def _arguments(facts: Facts, metric: MetricValue) -> dict[str, Any]:
    limits = {} if metric.low is None else {"confidence": facts.confidence, "low": metric.low, "high": metric.high}
    return {**limits, "units": metric.units, "signature": safe_line(metric.signature)}


def evaluation_section(facts: Facts) -> str:
    """Return the section about the evaluation."""
    others = "".join(_task(facts, task) for task in tasks.other_tasks(facts))
    compared = ""
    if facts.results.compared:
        note = escape(tasks.verdict_note(facts))
        compared = f"\n\n### Compared with another model\n\n{note}\n\n{markdown_table(scores.compared(facts))}"
    names = (DOCUMENTS, *tasks.other_tasks(facts))
    signatures = "\n\n".join(markdown_table(scores.signatures(facts, task)) for task in names)
    return f"""## Evaluation

{markdown_table(scores.metrics(facts, DOCUMENTS))}

{escape(sentences.reading(facts))} {tasks.UNITS} zlib
compresses each document alone, as the model reads it. {sentences.scoring(facts)}{others}{compared}

### How each number is computed

{signatures}"""


def _task(facts: Facts, task: str) -> str:
    verdicts = f"\n\n{markdown_table(scores.verdicts(facts, task))}" if table_stem(task) == CODE else ""
    return (
        f"\n\n### {escape(tasks.task_title(task))}\n\n{escape(tasks.task_note(facts, task))}\n\n"
        f"{markdown_table(scores.metrics(facts, task))}{verdicts}"
    )
