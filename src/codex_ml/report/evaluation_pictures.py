"""The pictures of the evaluation on the page, with the texts for people who do not see them. Used by: report.page."""

from __future__ import annotations

from functools import partial

from codex_ml.inference.evaluate_files import CODE, table_stem
from codex_ml.report import evaluation_plots as plots
from codex_ml.report.cells import between
from codex_ml.report.evaluation_facts import PartScore
from codex_ml.report.facts import Facts
from codex_ml.report.picture import Picture
from codex_ml.report.short_series import LEAST

Curve = list[tuple[int, float, float | None, float | None]]  # k, pass@k, low, high


def evaluation_pictures(facts: Facts) -> dict[str, Picture]:
    """Pictures by name; only those that have data."""
    found = {"by_size": _by_size(facts)}
    if _drawable(facts.results.sources):
        found["by_source"] = _by_source(facts)
    if _drawable(facts.results.lengths):
        found["by_length"] = _by_length(facts)
    if facts.results.calibration:
        found["calibration"] = _calibration(facts)
    if curves := pass_curves(facts):
        found["pass_at_k"] = Picture(
            "Share of the tasks that at least one of k programs solves, with intervals.",
            f"Line chart of pass@k against k for {len(curves)} benchmarks.",
            partial(plots.pass_rates, curves),
        )
    if (compared := facts.results.compared) and (shown := plots.drawable(compared.comparisons[0].metrics)):
        metrics = compared.comparisons[0].metrics
        found["differences"] = Picture(
            f"Paired differences, with intervals, in percent of the value of A: {len(shown)} of {len(metrics)} metrics "
            "have a difference and a value of A that is not 0. Filled: better or worse.",
            f"Dot chart of the differences of {len(shown)} metrics.",
            partial(plots.differences, metrics),
        )
    return found


def _drawable(parts: tuple[PartScore, ...]) -> bool:
    return any(part.bits_per_byte or part.zlib_bits_per_byte or part.ngram_bits_per_byte for part in parts)


def _without_model(facts: Facts) -> str:
    return " Without the model: its tokenizer loses text." if facts.evaluation.documents.lossy else ""


def _by_source(facts: Facts) -> Picture:
    sources = facts.results.sources
    both = [(s.bits_per_byte, s.zlib_bits_per_byte) for s in sources if s.bits_per_byte and s.zlib_bits_per_byte]
    better = sum(model < zlib for model, zlib in both)
    compared = f" The model needs fewer bits than zlib on {better} of {len(both)} sources." if both else ""
    many = f"the {plots.MAX_SOURCES} largest of {len(sources)}" if len(sources) > plots.MAX_SOURCES else "all"
    return Picture(
        f"Bits per byte by source ({many}), with the number of test documents.{_without_model(facts)}",
        f"Dot chart of bits per byte.{compared}",
        partial(plots.by_source, sources),
    )


def _by_length(facts: Facts) -> Picture:
    lengths = facts.results.lengths
    return Picture(
        f"Bits per byte by length of the document in bytes, with the number of documents.{_without_model(facts)}",
        f"Dot chart of bits per byte in {len(lengths)} classes of length.",
        partial(plots.by_length, lengths),
    )


def _by_size(facts: Facts) -> Picture:
    has_bits = facts.evaluation.documents.lossy is None
    return Picture(
        "Each test document: bits per byte against size. zlib reads each document alone, as the model does."
        f"{_without_model(facts)}",
        f"Scatter chart of bits per byte against document size, for {'the model and for ' if has_bits else ''}zlib.",
        partial(plots.by_size, facts.results.documents, model=has_bits),
    )


def _calibration(facts: Facts) -> Picture:
    error = facts.evaluation.documents.metrics.get("calibration_error")
    said = ""
    if error and error.value is not None:
        limits = f" (interval {between(error, 4)})" if error.low is not None else ""
        said = f" The calibration error is {error.value:.4f}{limits}."
    return Picture(
        f"Accuracy of the most probable token against its probability; below, the share of the predictions.{said}",
        f"Reliability diagram of {len(facts.results.calibration)} bins.{said}",
        partial(plots.calibration, facts.results.calibration),
    )


def pass_curves(facts: Facts) -> dict[str, Curve]:
    """pass@k by benchmark, for those with enough k for a line; the tables have all."""
    curves = {}
    for name, task in facts.evaluation.tasks.items():
        if table_stem(name) != CODE:
            continue
        rates = {int(key[8:]): value for key, value in task.metrics.items() if key.startswith("pass_at_")}
        points = [(k, r.value, r.low, r.high) for k, r in sorted(rates.items()) if r.value is not None]
        if len(points) >= LEAST:
            curves[name.partition("/")[2]] = points
    return curves
