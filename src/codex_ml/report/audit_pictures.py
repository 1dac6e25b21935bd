"""The pictures of the safety audit, with the texts for people who do not see them. Used by: report.page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from codex_ml.report import audit_plots as plots
from codex_ml.report.audit_facts import PlotPoint
from codex_ml.report.cells import Table, table
from codex_ml.report.facts import Facts
from codex_ml.report.picture import Picture

SHARE = "share of windows"
# Name of the picture -> the part that it belongs to.
PART_OF = {
    "extraction_by_prefix": "memorisation",
    "extraction_tries": "memorisation",
    "exposure": "canaries",
    "roc": "membership",
    "copied_runs": "generated",
}
CAPTIONS = {
    "extraction_by_prefix": "Share of windows whose suffix the model writes word for word, against the tokens of "
    "true text before it. A model that has learnt a text by heart needs few; held-out text is the control.",
    "extraction_tries": "Share of windows whose suffix comes out with probability one half within so many samples (n "
    "tries: 1 - (1 - p)^n is 0.5, with p the product of the probabilities of the suffix's tokens).",
    "exposure": "Exposure of planted secrets by how often each is in the data, and the mean of secrets that were "
    "never planted. One bit more halves the number of guesses that find the secret.",
    "roc": "Membership inference: members found against held-out documents taken for members, on logarithmic axes. "
    "A score is dangerous where it is far above the line of chance at the left.",
    "copied_runs": "Longest run of tokens that a text shares with the training data, for text that the model wrote and "
    "for held-out text of the same kind.",
}  # fmt: skip
# Axes of the pictures that have a line for each series.
AXES = {
    "extraction_by_prefix": (plots.Axis("tokens of true text before the suffix", log=2), SHARE),
    "extraction_tries": (plots.Axis("samples (tries)", log=10), SHARE),
    "exposure": (plots.Axis("times planted", log=2), "exposure, bits"),
}
LEAST = 3  # places on the x axis; a line through two shows no more than a table


def audit_pictures(facts: Facts) -> dict[str, Picture]:
    """Pictures by name; only those that have enough points."""
    return {
        name: Picture(caption, f"Chart: {_alt(facts.audit_plots[name])}", partial(_draw, name, facts.audit_plots[name]))
        for name, caption in CAPTIONS.items()
        if not _few(facts.audit_plots[name])
    }


def _draw(name: str, points: Sequence[PlotPoint]) -> str:
    if name == "roc":
        return plots.roc(points)
    if name == "copied_runs":
        return plots.bars(points, "longest shared run, tokens", "share of texts")
    return plots.curves(points, *AXES[name])


def short_tables(facts: Facts) -> dict[str, Table]:
    """Tables of those that have points, but too few for a picture."""
    return {name: _table(name, points) for name, points in facts.audit_plots.items() if points and _few(points)}


def pictures_of(part: str) -> list[str]:
    """Names of the pictures that belong to a part."""
    return [name for name, owner in PART_OF.items() if owner == part]


def _few(points: Sequence[PlotPoint]) -> bool:
    return len({point.place for point in points}) < LEAST


def _alt(points: Sequence[PlotPoint]) -> str:
    """First and last value of each series."""
    parts = []
    for name, series in plots.by_series(points).items():
        first, last = series[0], series[-1]
        parts.append(f"{name} from {first.y:.3g} at {first.place} to {last.y:.3g} at {last.place}")
    return "; ".join(parts) + "."


def _table(name: str, points: Sequence[PlotPoint]) -> Table:
    rows = [(p.series, p.place, f"{p.y:.4g}", "–" if p.low is None else f"{p.low:.4g} to {p.high:.4g}") for p in points]
    head = {"series": "text", "at": "number", "value": "number", "interval": "number"}
    title = name.replace("_", " ")
    return table(title[:1].upper() + title[1:], head, rows)
