"""The result of a sweep: one JSON object, a table, a CSV file and a picture.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.cli.sweeping.search_space import SweepAxis
from codex_ml.cli.sweeping.sweep_journal import SweepSettings, SweepTrial
from codex_ml.core.contract import Contract
from codex_ml.core.csv_file import write_csv
from codex_ml.core.io import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, PICTURE = "trials.csv", "trials.svg"
MOST_PANELS = 6  # of parameters in the picture


class SweepResult(Contract):
    """What `codex-ml sweep --json` prints.

    Attributes:
        trials: in the order of their numbers.
        best: number of the best finished trial; None without one.
        folder: holds the journal, trials.csv, trials.svg and a log per trial.
    """

    settings: SweepSettings
    trials: list[SweepTrial]
    best: int | None
    folder: str


def best_of(trials: Sequence[SweepTrial], direction: str) -> SweepTrial | None:
    """The finished trial with the best metric; of equal ones, the first."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.value is not None]
    sign = 1 if direction == "min" else -1
    return min(finished, key=lambda trial: sign * (trial.value or 0.0), default=None)


def write_result(result: SweepResult, axes: Sequence[SweepAxis], folder: Path) -> None:
    """Write trials.csv and trials.svg."""
    columns = ["trial", "state", result.settings.metric, *(axis.key for axis in axes), "experiment", "seconds"]
    rows = []
    for trial in result.trials:
        values = [trial.params.get(axis.key, "") for axis in axes]
        rows.append([trial.number, trial.state, trial.value, *values, trial.experiment, trial.seconds])
    write_csv(folder / TABLE, columns, rows)
    write_text(folder / PICTURE, picture(result, [axis for axis in axes if axis.varies]))


def table_of(result: SweepResult, axes: Sequence[SweepAxis]) -> list[str]:
    """The table as text: finished trials from the best to the worst, then the others."""
    sign = 1 if result.settings.direction == "min" else -1
    ordered = sorted(
        result.trials,
        key=lambda trial: (trial.state != "finished", sign * (trial.value or 0.0), trial.number),
    )
    varied = [axis.key for axis in axes if axis.varies]
    rows = [["trial", result.settings.metric, *varied, "seconds", "experiment"]]
    for trial in ordered:
        value = f"{trial.value:.6g}" if trial.state == "finished" else trial.state
        seconds = "" if trial.seconds is None else f"{trial.seconds:.0f}"
        rows.append([str(trial.number), value, *(trial.params[key] for key in varied), seconds, trial.experiment])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def picture(result: SweepResult, varied: Sequence[SweepAxis]) -> str:
    """SVG: the metric per trial with the best so far, and the metric against each parameter that varies."""
    from codex_ml.report.plots import BLUE, GREY, ORANGE, label, svg

    finished = [(trial, trial.value) for trial in result.trials if trial.value is not None]
    best = best_of(result.trials, result.settings.direction)
    better = min if result.settings.direction == "min" else max
    shown = list(varied)[:MOST_PANELS]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1 + len(shown), 1, squeeze=False)[:, 0]
        numbers = [trial.number for trial, _ in finished]
        values = [value for _, value in finished]
        panels[0].plot(numbers, values, color=GREY, linestyle="", marker="o", markersize=4, label="finished trial")
        sofar = [better(values[: index + 1]) for index in range(len(values))]
        panels[0].step(numbers, sofar, where="post", color=BLUE, label="best so far")
        label(panels[0], "trial", result.settings.metric)
        panels[0].legend()
        for panel, axis in zip(panels[1:], shown, strict=True):
            _against(panel, axis, result.settings.metric, finished)
            if best:
                at = _place(axis, best.params[axis.key])
                panel.plot([at], [best.value], color=ORANGE, linestyle="", marker="*", markersize=13)

    return svg(draw, width=5.6, height=2.6 * (1 + len(shown)))


def _against(panel: Axes, axis: SweepAxis, metric: str, finished: Sequence[tuple[SweepTrial, float]]) -> None:
    from codex_ml.report.plots import GREY, label, short

    places = [_place(axis, trial.params[axis.key]) for trial, _ in finished]
    panel.plot(places, [value for _, value in finished], color=GREY, linestyle="", marker="o", markersize=4)
    if axis.kind == "loguniform":
        panel.set_xscale("log")
    if axis.kind == "choice":
        panel.set_xticks(range(len(axis.options)), [short(option).replace("$", r"\$") for option in axis.options])
    label(panel, axis.key, metric)


def _place(axis: SweepAxis, text: str) -> float:
    """Where a value lies on its axis; options of a choice lie at 0, 1, 2, ..."""
    return float(axis.options.index(text)) if axis.kind == "choice" else float(text)
