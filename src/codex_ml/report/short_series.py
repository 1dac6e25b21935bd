"""Show data as a table if it has too few points for a plot: a line through two points shows no more than a table."""

from __future__ import annotations

from collections.abc import Sequence

from codex_ml.report.cells import Table, table
from codex_ml.report.evaluation_facts import PartScore
from codex_ml.report.facts import Facts, Point

LEAST = 3  # points of a plot


def tables(facts: Facts) -> dict[str, Table]:
    """Tables by the name of the picture that each replaces; none for one that has enough points."""
    curves, found = facts.curves, {}
    if _few(curves["train/loss"], curves["val/loss"]):
        columns = {"training": curves["train/loss"], "validation": curves["val/loss"]}
        found["loss"] = _steps("Loss, nats per token", columns, "{:.4f}")
    if _few(curves["train/lr"], curves["train/grad_norm"]):
        rates = {"learning rate": curves["train/lr"]}
        if second := curves["train/embedding_lr"]:
            rates = {"learning rate of matrices": curves["train/lr"], "of embeddings, norms, biases": second}
        title = f"Learning rate{'s' * bool(second)}, and gradient norm before clipping"
        found["schedule"] = _steps(title, {**rates, "gradient norm": curves["train/grad_norm"]}, "{:.3g}")
    results = facts.results
    if _few(results.sources):
        found["by_source"] = _parts("source", results.sources)
    if results.lengths and _few(results.lengths):
        found["by_length"] = _parts("length in bytes", results.lengths)
    if results.calibration and _few(results.calibration):
        bins = [(f"{b.confidence:.4f}", f"{b.accuracy:.4f}", f"{b.tokens:,}") for b in results.calibration]
        found["calibration"] = table(
            "Calibration", dict.fromkeys(("confidence", "accuracy", "predictions"), "number"), bins
        )
    if _few(results.documents):
        has_bits = facts.evaluation.documents.lossy is None
        sizes = [
            (f"{d.bytes:,}", _bits(d.bits_per_byte if has_bits else None), _bits(d.zlib_bits_per_byte))
            for d in sorted(results.documents, key=lambda d: (d.bytes, d.bits_per_byte))
        ]
        found["by_size"] = table(
            "Bits per byte of each test document", dict.fromkeys(("bytes", "model", "zlib -9"), "number"), sizes
        )
    return found


def _few(*curves: Sequence[object]) -> bool:
    return max(map(len, curves)) < LEAST


def _parts(name: str, scores: Sequence[PartScore]) -> Table:
    rows = [
        (
            s.name,
            f"{s.documents:,}",
            _bits(s.bits_per_byte),
            "–" if s.low is None else f"{s.low:.4f} to {s.high:.4f}",
            _bits(s.zlib_bits_per_byte),
            _bits(s.ngram_bits_per_byte),
        )
        for s in scores
    ]
    numbers = ("documents", "model", "interval", "zlib -9", "n-gram model")
    return table(f"Bits per byte by {name}", {name: "text", **dict.fromkeys(numbers, "number")}, rows)


def _bits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _steps(title: str, curves: dict[str, tuple[Point, ...]], form: str) -> Table:
    by_step = {name: dict(points) for name, points in curves.items()}
    steps = sorted(set().union(*by_step.values()))
    rows = [(f"{step:,}", *(form.format(c[step]) if step in c else "–" for c in by_step.values())) for step in steps]
    return table(title, {"global_step": "number", **dict.fromkeys(curves, "number")}, rows)
