"""The tables of the evaluation, the same on the page and in the model card: one set per task."""

from __future__ import annotations

from typing import Any

from codex_ml.inference.comparison_files import ComparedMetric
from codex_ml.inference.evaluate_files import CODE, DOCUMENTS, MetricValue, TaskResult, table_stem
from codex_ml.report.cells import Table, percent, table
from codex_ml.report.facts import Facts

LABELS = {
    "bits_per_byte": "bits per byte",
    "zlib_bits_per_byte": "bits per byte, zlib -9",
    "ngram_bits_per_byte": "bits per byte, n-gram model",
    "bits_per_byte_minus_zlib": "difference to zlib",
    "bits_per_byte_minus_ngram": "difference to the n-gram model",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word",
    "byte_perplexity": "perplexity per byte",
    "token_accuracy": "token accuracy",
    "top5_accuracy": "top-5 accuracy",
    "calibration_error": "calibration error",
    "solution_bits_per_byte": "bits per byte of the reference solutions",
    "program_parse_rate": "programs that are Python",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "token_f1": "token F1",
    "exact_match_code": "exact match, code-normalised",
    "exact_match_squad": "exact match, SQuAD-normalised",
    "exact_match_stripped": "exact match, stripped",
}
ORDER = {name: number for number, name in enumerate(LABELS)}
SHARES = ("accuracy", "exact_match", "parse_rate", "pass_at_")  # parts of names of metrics that are shares
VERDICTS = {
    "passed": "all assertions hold",
    "wrong": "an assertion does not hold",
    "crashed": "the program ended early, with an error or without one",
    "time": "more CPU time or wall time than allowed",
    "memory": "more memory than allowed",
    "output": "more output than allowed",
}


def metrics(facts: Facts, task: str) -> Table:
    """Return the metrics of a task with their intervals; the last column says why a number is absent."""
    found = facts.evaluation.tasks[task]
    rows: list[tuple[Any, ...]] = []
    for name, value in _ordered(found):
        shown, limits, why = _cells(found, name, value)
        rows.append((metric_label(name), shown, limits, f"{value.units:,}", why))
    counts = {"programs": "programs", "bytes": "bytes", "tokens": "tokens"}
    rows += [(_items(task), f"{found.items:,}", "–", f"{found.units:,}", "")]
    rows += [(words, f"{found.counts[name]:,}", "–", "–", "") for name, words in counts.items() if name in found.counts]
    head = {
        _title(task): "text",
        "value": "number",
        f"{percent(facts.confidence, 0)} interval": "number",
        "units": "number",
        "what is absent, and why": "text",
    }
    if not any(row[-1] for row in rows):
        head.popitem()
        rows = [row[:-1] for row in rows]
    return table(_title(task), head, rows)


def _cells(task: TaskResult, name: str, found: MetricValue) -> tuple[str, str, str]:
    """Value, interval, and what is absent."""
    if found.value is None:
        if task.lossy and found.why == task.lossy.reason:
            return "none; the tokenizer loses text", "–", ""
        return "–", "–", found.why or ""
    limits = [_number(name, limit) for limit in (found.low, found.high) if limit is not None]
    exact = " (exact)" if found.method == "exact" else ""
    return _number(name, found.value), " to ".join(limits) + exact or "–", found.why or ""


def _number(name: str, value: float) -> str:
    if any(part in name for part in SHARES):
        return percent(value, 2)
    if "bits_per_byte" in name:
        return f"{value:,.4f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ordered(task: TaskResult) -> list[tuple[str, MetricValue]]:
    """pass@k first, then metrics that have a label, in that order."""

    def key(item: tuple[str, MetricValue]) -> tuple[bool, int, tuple[str, int]]:
        return not item[0].startswith("pass_at_"), ORDER.get(item[0], len(ORDER)), _natural(item[0])

    return sorted(task.metrics.items(), key=key)


def _natural(name: str) -> tuple[str, int]:
    """So that pass_at_10 is after pass_at_2."""
    words, _, number = name.rpartition("_")
    return (words, int(number)) if number.isdigit() else (name, 0)


def metric_label(name: str) -> str:
    """Return a metric's name in words."""
    words, _, k = name.rpartition("_at_")
    return f"{words}@{k}" if words == "pass" else LABELS.get(name, name.replace("_", " "))


def _title(task: str) -> str:
    stem, _, benchmark = task.partition("/")
    return f"executed code, {benchmark}" if stem == CODE else "test split" if task == DOCUMENTS else task


def _items(task: str) -> str:
    return "tasks" if table_stem(task) == CODE else "documents"


def signatures(facts: Facts, task: str) -> Table:
    """Return everything that each number of a task depends on beside the model and the data."""
    rows = [(metric_label(name), value.signature) for name, value in _ordered(facts.evaluation.tasks[task])]
    return table("Signatures", {_title(task): "text", "signature": "code"}, rows)


def settings(facts: Facts, task: str) -> Table:
    """Return how a task was measured."""
    rows = [(name, _setting(value)) for name, value in sorted(facts.evaluation.tasks[task].settings.items())]
    return table("Settings", {"setting": "code key", "value": "code"}, rows)


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(repr, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else "none" if value in ("", None) else str(value)


def verdicts(facts: Facts, task: str) -> Table:
    """Return how many programs of a benchmark had each verdict."""
    counts = facts.evaluation.tasks[task].counts
    rows = [(name, f"{counts[name]:,}", meaning) for name, meaning in VERDICTS.items() if name in counts]
    head = {"verdict": "text", "programs": "number", "meaning": "text"}
    return table(f"Verdicts, {task.partition('/')[2]}", head, rows)


def compared(facts: Facts) -> Table:
    """Return the paired differences to the result that `evaluate.compare_to` names."""
    found = facts.results.compared
    assert found is not None
    head = {
        "task": "text",
        "metric": "text",
        "A": "number",
        "B": "number",
        "B - A": "number",
        f"{percent(found.confidence, 0)} interval": "number",
        "p (Holm)": "number",
        "B is": "text",
    }
    rows = [_difference(metric) for metric in found.comparisons[0].metrics]
    return table("Compared with evaluate.compare_to", head, rows)


def _difference(row: ComparedMetric) -> tuple[str, ...]:
    limits = "–" if row.low is None or row.high is None else f"{row.low:+.4g} to {row.high:+.4g}"
    limits += " (score)" if row.method == "score" else ""
    values = ("–" if value is None else f"{value:.5g}" for value in (row.a, row.b))
    difference = "–" if row.difference is None else f"{row.difference:+.4g}"
    p = "–" if row.p_holm is None else f"{row.p_holm:.2g}"
    verdict = f"{row.verdict}: {row.why}" if row.why else row.verdict
    return row.task, metric_label(row.metric), *values, difference, limits, p, verdict
