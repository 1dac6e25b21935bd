"""Draw the training as SVG text, and hold what all figures share.

Equal inputs give equal bytes, no figure needs colour to be read, each is below 60 kB.

The colours are Okabe and Ito's (2008), which people with the common kinds of colour blindness can distinguish; markers
and line styles differ too. `Figure` is used without pyplot, which would need global state and a window system.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from codex_ml.core.errors import safe_line
from codex_ml.report.facts import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#595959"
MAX_POINTS = 400  # per curve: more than the pixels of a phone, about 10 kB
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "codex-ml",  # ids of clip paths and markers; random without
    "svg.fonttype": "none",  # text stays text: smaller, and the viewer's fonts cover every script
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the layout does not depend on the machine's fonts
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.usetex": False,
    "axes.formatter.useoffset": False,
}

T = TypeVar("T")


def thin_out(points: Sequence[T], most: int = MAX_POINTS) -> list[T]:
    """Return at most `most` of the points, evenly spaced, including the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def loss_curve(train: Sequence[Point], val: Sequence[Point], *, best_step: int) -> str:
    """Draw training and validation loss in nats per token against global_step; a star marks the kept weights."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(*_xy(train), color=ORANGE, label="training", linewidth=1.2)
        axes.plot(*_xy(val), color=BLUE, label="validation", linestyle="--", marker="o", markersize=4)
        best = [point for point in val if point[0] == best_step]
        if best:
            kept = f"kept: step {best_step}, {best[0][1]:.4f}"
            axes.plot(*_xy(best), color="black", linestyle="", marker="*", markersize=13, label=kept)
        label(axes, "global_step", "loss, nats per token")
        axes.legend()

    return svg(draw, width=5.6, height=3.2)


def schedule(lr: Sequence[Point], grad_norm: Sequence[Point], embedding_lr: Sequence[Point] = ()) -> str:
    """Draw the learning rates, and the gradient's global L2 norm before clipping.

    Args:
        lr: of the hidden matrices; of all weights where `embedding_lr` is empty.
        embedding_lr: of embeddings, output head, norms and biases.
    """

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(*_xy(lr), color=BLUE, label="matrices")
        if embedding_lr:
            upper.plot(*_xy(embedding_lr), color=GREY, linestyle="--", label="embeddings, norms, biases")
            upper.legend()
        lower.plot(*_xy(grad_norm), color=ORANGE)
        label(upper, "", "learning rate")
        label(lower, "global_step", "gradient norm")
        figure.align_ylabels()

    return svg(draw, width=5.6, height=3.8)


def _xy(points: Sequence[Point]) -> tuple[list[int], list[float]]:
    kept = thin_out(points)
    return [step for step, _ in kept], [value for _, value in kept]


def short(source: str) -> str:
    """Return a name on one line, of at most 32 characters."""
    name = safe_line(source)
    return name if len(name) <= 32 else name[:15] + "…" + name[-16:]


def label(axes: Axes, x: str, y: str) -> None:
    """Name both axes."""
    axes.set_xlabel(safe_line(x), parse_math=False)
    axes.set_ylabel(safe_line(y), parse_math=False)
    axes.margins(x=0.02)


def svg(draw: Callable[[Figure], None], *, width: float, height: float) -> str:
    """Return what `draw` draws into a figure; sizes in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    text = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # not the user's matplotlibrc
        mpl.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # only measured here; the viewer has the font
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = text.getvalue()
    return _compact(drawn[drawn.index("<svg") :])  # without the XML prologue, which names an external DTD


def _compact(drawn: str) -> str:
    """The picture without indentation, and with coordinates to a hundredth of a point: a sixth less."""
    lines = re.sub(r"\n +", "\n", drawn)
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), lines)
