"""Draw the evaluation as SVG text; what `codex_ml.report.plots` says of figures holds here too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from codex_ml.inference.comparison_files import ComparedMetric
from codex_ml.report.evaluation_facts import ConfidenceBin, PartScore, SizeScore
from codex_ml.report.evaluation_tables import metric_label
from codex_ml.report.plots import BLUE, GREY, ORANGE, label, short, svg, thin_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SOURCES = 36
MAX_DOCUMENTS = 150
MAX_DIFFERENCES = 40


def by_source(scores: Sequence[PartScore]) -> str:
    """Draw bits per byte by source, for the sources with most documents, the best at the top.

    See `_parts` for what is drawn of each.
    """
    largest = sorted(scores, key=lambda s: (-s.documents, s.name))[:MAX_SOURCES]
    shown = sorted(largest, key=lambda s: (-(s.bits_per_byte or s.zlib_bits_per_byte or 0), s.name))
    return _parts(shown)


def by_length(scores: Sequence[PartScore]) -> str:
    """Draw bits per byte by length of the document, the shortest at the top. See `_parts`."""
    return _parts(scores[::-1])


def _parts(shown: Sequence[PartScore]) -> str:
    """Draw bits per byte of model, zlib and n-gram model, one line per part, the first at the bottom.

    The model has a bar for its interval where there is one. What has no bits per byte is left out.
    """
    rows = range(len(shown))
    model = [(s.bits_per_byte, row) for row, s in zip(rows, shown, strict=True) if s.bits_per_byte is not None]
    plain = [(s.zlib_bits_per_byte, row) for row, s in zip(rows, shown, strict=True) if s.zlib_bits_per_byte]
    ngram = [(s.ngram_bits_per_byte, row) for row, s in zip(rows, shown, strict=True) if s.ngram_bits_per_byte]
    intervals = [(row, s.low, s.high) for row, s in zip(rows, shown, strict=True) if s.low is not None]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if intervals:
            places, lows, highs = zip(*intervals, strict=True)
            axes.hlines(places, lows, highs, color=BLUE, linewidth=1.6)
            both = ([*lows, *highs], [*places, *places])
            axes.plot(*both, color=BLUE, linestyle="", marker="|", markersize=9, label="its interval")
        styles: tuple[tuple[str, list[tuple[float, int]], dict[str, Any]], ...] = (
            ("zlib -9", plain, {"color": ORANGE, "marker": "D", "markersize": 5, "fillstyle": "none"}),
            ("n-gram model", ngram, {"color": GREY, "marker": "x", "markersize": 5}),
            ("model", model, {"color": BLUE, "marker": "o", "markersize": 6}),
        )
        for name, points, style in styles:
            if points:
                axes.plot(*zip(*points, strict=True), linestyle="", label=name, **style)
        axes.set_yticks(rows, [f"{short(s.name)} ({s.documents})" for s in shown], parse_math=False)
        axes.set_xlim(left=0)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        label(axes, "bits per byte (less is better)", "")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    return svg(draw, width=5.6, height=1.5 + 0.24 * len(shown))


def by_size(documents: Sequence[SizeScore], *, model: bool = True) -> str:
    """Draw bits per byte of single test documents against their size; without `model`, zlib's only."""
    shown = thin_out(sorted(documents, key=lambda d: (d.bytes, d.bits_per_byte)), MAX_DOCUMENTS)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        size = [d.bytes for d in shown]
        plain = [d.zlib_bits_per_byte for d in shown]
        axes.plot(size, plain, color=ORANGE, linestyle="", marker="D", markersize=4, fillstyle="none", label="zlib -9")
        if model:
            own = [d.bits_per_byte for d in shown]
            axes.plot(size, own, color=BLUE, linestyle="", marker="o", markersize=4.5, label="model")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        label(axes, "size of the document, bytes", "bits per byte")
        axes.legend()

    return svg(draw, width=5.6, height=3.2)


def calibration(bins: Sequence[ConfidenceBin]) -> str:
    """Draw accuracy against confidence (a reliability diagram), and below it how many predictions each bin has."""
    confidence, total = [b.confidence for b in bins], sum(b.tokens for b in bins)

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="calibrated")
        upper.vlines(confidence, confidence, [b.accuracy for b in bins], color=ORANGE, linewidth=1.2)
        upper.plot(confidence, [b.accuracy for b in bins], color=BLUE, marker="o", markersize=5, label="model")
        lower.vlines(confidence, 0, [b.tokens / total for b in bins], color=BLUE, linewidth=5)
        upper.set_ylim(0, 1)
        lower.set_ylim(bottom=0)
        label(upper, "", "accuracy")
        label(lower, "probability of the most probable token", "share")
        upper.set_xlim(0, 1)
        upper.legend()
        figure.align_ylabels()

    return svg(draw, width=5.6, height=3.8)


def pass_rates(curves: Mapping[str, Sequence[tuple[int, float, float | None, float | None]]]) -> str:
    """Draw pass@k of each benchmark against k, with intervals.

    Args:
        curves: benchmark -> (k, pass@k, low, high), ascending in k.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        styles = ((BLUE, "o", "-"), (ORANGE, "D", "--"), (GREY, "s", ":"))
        for number, (name, points) in enumerate(curves.items()):
            color, marker, line = styles[number % len(styles)]
            some = [(k, low, high) for k, _, low, high in points if low is not None]
            axes.plot(
                *zip(*((k, value) for k, value, _, _ in points), strict=True),
                color=color, marker=marker, markersize=5, linestyle=line, label=short(name),
            )  # fmt: skip
            if some:
                axes.vlines(*zip(*some, strict=True), color=color, linewidth=1.2)
        axes.set_xscale("log")
        ticks = sorted({k for points in curves.values() for k, *_ in points})
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        label(axes, "k, programs per task", "pass@k")
        axes.legend()

    return svg(draw, width=5.6, height=3.2)


def drawable(metrics: Sequence[ComparedMetric]) -> list[ComparedMetric]:
    """The metrics whose difference is drawn: those with one, and with a value of A that is not 0 to divide it by."""
    return [m for m in metrics if m.difference is not None and m.a][:MAX_DIFFERENCES]


def differences(metrics: Sequence[ComparedMetric]) -> str:
    """Draw the paired differences as shares of the value of A, so that all metrics have one axis; right is better."""
    shown = drawable(metrics)[::-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=1)
        for row, metric in enumerate(shown):
            _difference(axes, row, metric)
        axes.set_yticks(range(len(shown)), [f"{m.task}: {metric_label(m.metric)}" for m in shown], parse_math=False)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        label(axes, "difference in % of A (right: B is better)", "")

    return svg(draw, width=6.4, height=1.0 + 0.24 * len(shown))


def _difference(axes: Axes, row: int, metric: ComparedMetric) -> None:
    assert metric.difference is not None
    assert metric.a
    scale = (100 if metric.higher_is_better else -100) / abs(metric.a)
    color = {"better": BLUE, "worse": ORANGE}.get(metric.verdict, GREY)
    filled = "full" if metric.verdict in ("better", "worse") else "none"
    if metric.low is not None and metric.high is not None:
        limits = (scale * metric.low, scale * metric.high)
        axes.hlines(row, min(limits), max(limits), color=color, linewidth=1.6)
    axes.plot(scale * metric.difference, row, color=color, marker="o", markersize=5, fillstyle=filled)
