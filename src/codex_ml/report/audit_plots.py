"""Draw the safety audit as SVG text; what `codex_ml.report.plots` says of figures holds here too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_ml.report.audit_facts import PlotPoint
from codex_ml.report.plots import BLUE, GREY, ORANGE, label, short, svg, thin_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

PURPLE, GREEN = "#8F4B7A", "#00745A"
STYLES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "D", "linestyle": "--"},
    {"color": GREY, "marker": "s", "linestyle": ":"},
    {"color": PURPLE, "marker": "^", "linestyle": "-."},
    {"color": GREEN, "marker": "v", "linestyle": (0, (5, 1))},
)
MAX_SERIES = 8
MAX_POINTS = 120  # of one series


@dataclass(frozen=True)
class Axis:
    """An x axis.

    Attributes:
        log: the base of its logarithm; 0: linear. Points that are not positive have no place on a logarithmic axis.
    """

    name: str
    log: int = 0

    def shows(self, point: PlotPoint) -> bool:
        return point.x > 0 or not self.log


def by_series(points: Sequence[PlotPoint]) -> dict[str, list[PlotPoint]]:
    """The points of each series, ascending in x, in the order in which the series appear."""
    found: dict[str, list[PlotPoint]] = {}
    for point in points:
        found.setdefault(point.series, []).append(point)
    shown = list(found.items())[:MAX_SERIES]
    return {name: sorted(series, key=lambda point: point.x) for name, series in shown}


def curves(points: Sequence[PlotPoint], x: Axis, y: str) -> str:
    """Draw a line for each series, with a bar for the interval of a point."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (name, series) in enumerate(by_series(points).items()):
            _curve(axes, number, name, [point for point in series if x.shows(point)])
        _scale(axes, x, [point for point in points if x.shows(point)])
        label(axes, x.name, y)
        _legend(axes)

    return svg(draw, width=5.6, height=3.2)


def _curve(axes: Axes, number: int, name: str, series: Sequence[PlotPoint]) -> None:
    style = STYLES[number % len(STYLES)]
    shown = thin_out(series, MAX_POINTS)
    size = 5 if len(shown) <= 20 else 0
    beside = _beside(axes, number)
    axes.plot([p.x for p in shown], [p.y for p in shown], label=short(name), markersize=size, transform=beside, **style)
    bars = [(p.x, p.low, p.high) for p in shown if p.low is not None and p.high is not None]
    if bars and len(shown) <= 20:
        places, lows, highs = zip(*bars, strict=True)
        axes.vlines(places, lows, highs, color=style["color"], linewidth=1.2, transform=beside)


def _beside(axes: Axes, number: int) -> Transform:
    """So that the intervals of series at one place are beside each other, 4 points apart; the first is at its place."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure
    return axes.transData + ScaledTranslation(4 * number / 72, 0, figure.dpi_scale_trans)


def _scale(axes: Axes, x: Axis, shown: Sequence[PlotPoint]) -> None:
    """Set both axes so that all points and intervals fit; matplotlib does not count what is drawn beside its place."""
    if x.log:
        axes.set_xscale("log", base=x.log)
    places = sorted({(p.x, p.place) for p in shown})
    if len(places) <= 12 and sum(len(name) for _, name in places) <= 48:  # the names fit below the axis
        axes.set_xticks([place for place, _ in places], [short(name) for _, name in places], parse_math=False)
        axes.minorticks_off()
    if places:
        axes.set_xlim(*_limits([place for place, _ in places], log=bool(x.log)))
        values = [value for p in shown for value in (p.y, p.low, p.high) if value is not None]
        low, high = _limits([0.0, *values])
        axes.set_ylim(low if min(values) < 0 else 0, high or 1)


def _limits(values: Sequence[float], *, log: bool = False) -> tuple[float, float]:
    """Smallest and largest value with a margin of a twentieth of the axis."""
    low, high = min(values), max(values)
    if log:
        margin = (high / low) ** 0.05 if high > low else 2
        return low / margin, high * margin
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def roc(points: Sequence[PlotPoint]) -> str:
    """Draw the true positive rate of each score against the false positive rate, both axes logarithmic.

    A rate of 0 is drawn at the edge, which is half of the smallest positive false positive rate.
    """
    edge = min((p.x for p in points if p.x > 0), default=1) / 2

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot((edge, 1), (edge, 1), color=GREY, linewidth=1, label="chance")
        for number, (name, series) in enumerate(by_series(points).items()):
            style = STYLES[number % len(STYLES)]
            shown = thin_out(series, MAX_POINTS)
            places = [(max(p.x, edge), max(p.y, edge)) for p in shown]
            axes.plot(*zip(*places, strict=True), label=short(name), linestyle=style["linestyle"], color=style["color"])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(edge, 1)
        axes.set_ylim(edge, 1.1)
        label(axes, "share of held-out documents called members (FPR)", "share of members found (TPR)")
        axes.legend(loc="lower right")

    return svg(draw, width=5.6, height=4.2)


def bars(points: Sequence[PlotPoint], x: str, y: str) -> str:
    """Draw the series beside each other at each place, in the order of the table."""
    series = by_series(points)
    names = list(dict.fromkeys(p.place for p in points))
    width = 0.8 / len(series)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (name, found) in enumerate(series.items()):
            hatch = ("", "///", "...", "xxx")[number % 4]
            places = [names.index(p.place) + (number - (len(series) - 1) / 2) * width for p in found]
            color = STYLES[number % len(STYLES)]["color"]
            axes.bar(places, [p.y for p in found], width=width * 0.9, color=color, hatch=hatch, edgecolor="white",
                     label=short(name))  # fmt: skip
        axes.set_xticks(range(len(names)), [short(name) for name in names], parse_math=False)
        axes.set_ylim(bottom=0)
        axes.set_axisbelow(True)
        label(axes, x, y)
        _legend(axes)

    return svg(draw, width=5.6, height=3.2)
