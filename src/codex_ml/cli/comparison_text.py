"""A comparison of results as aligned text. Used by: `codex-ml compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from codex_ml.core.errors import safe_line
from codex_ml.inference.comparison_files import (
    ComparedMetric,
    ComparedSide,
    ComparedTask,
    Comparison,
    Comparisons,
    ItemChanges,
)
from codex_ml.inference.evaluate_files import RESULTS, table_stem

INPUTS = 20  # of one kind that the text shows; --json has all
LONGEST = 60  # characters of a cell
HEAD = ("", "A", "B", "B - A", "interval", "p", "p (Holm)", "B is")


def comparison_lines(found: Comparisons) -> Iterator[str]:
    """All comparisons, one block each. Control characters of names and paths are escapes."""
    for number, comparison in enumerate(found.comparisons):
        if number:
            yield ""
        yield from _block(comparison)
    yield ""
    yield reading(found)


def reading(found: Comparisons) -> str:
    """One sentence on what the numbers mean."""
    return (
        f"Intervals: {found.confidence:.0%}, paired over units, {found.resamples} resamples. p: exact or by "
        f"randomisation per unit; p (Holm) counts the {found.family} tests of this comparison. B is better or worse "
        f"where p (Holm) is below {1 - found.confidence:.2g}."
    )


def _block(comparison: Comparison) -> Iterator[str]:
    yield from aligned([("A", *_side(comparison.a)), ("B", *_side(comparison.b))])
    for task in comparison.tasks:
        yield ""
        yield safe_line(f"{task.task}: {size_of(task)}")
        rows = [metric for metric in comparison.metrics if metric.task == task.task]
        yield from aligned([HEAD, *(metric_cells(row) for row in rows)], right=(1, 2, 3, 4, 5, 6))
        for row in rows:
            if row.why:
                yield safe_line(f"  {row.metric}: {row.why}")
        for setting in task.settings:
            yield safe_line(f"  setting {setting.name}: A {setting.a or 'has none'}, B {setting.b or 'has none'}")
        for change in comparison.changes:
            if change.task == task.task:
                yield from _changes(change)
    yield from _inputs(comparison)
    for note in comparison.notes:
        yield safe_line(f"note: {note}")


def _side(side: ComparedSide) -> tuple[str, str]:
    return side.name, f"{side.kind} {side.commit[:12]}".rstrip()


def size_of(task: ComparedTask) -> str:
    """How much was compared, and what was left out."""
    alone = f"; left out: {task.only_a} of A alone, {task.only_b} of B alone" if task.only_a or task.only_b else ""
    return f"{counted(task.items, 'item')}, {counted(task.units, 'unit')}{alone}"


def metric_cells(row: ComparedMetric) -> tuple[str, ...]:
    """The cells of one metric in the order of `HEAD`."""
    interval = "" if row.low is None or row.high is None else f"{decimal(row.low)} to {decimal(row.high)}"
    interval += " (score)" if row.method == "score" else ""
    return (
        row.metric,
        decimal(row.a),
        decimal(row.b),
        decimal(row.difference, signed=True),
        interval,
        probability(row.p),
        probability(row.p_holm),
        row.verdict if not row.notes else f"{row.verdict} (settings differ)",
    )


def _changes(change: ItemChanges) -> Iterator[str]:
    yield ""
    if change.flips:
        gained = "from 0 to 1" if change.higher_is_better else "from 1 to 0"
        lost = "from 1 to 0" if change.higher_is_better else "from 0 to 1"
    else:
        gained, lost = "better", "worse"
    yield safe_line(f"{change.metric} by item: {change.better} {gained}, {change.worse} {lost}")
    rows = [
        (
            kind,
            item.item,
            item.source,
            item.path,
            decimal(item.a),
            decimal(item.b),
            decimal(item.difference, signed=True),
        )
        for kind, items in (("gain", change.gains), ("loss", change.losses))
        for item in items
    ]
    yield from aligned([("", "item", "source", "path", "A", "B", "B - A"), *rows], right=(4, 5, 6))


def _inputs(comparison: Comparison) -> Iterator[str]:
    kinds = dict.fromkeys(difference.kind for difference in comparison.inputs)
    for kind in kinds:
        differences = [difference for difference in comparison.inputs if difference.kind == kind]
        yield ""
        yield f"{kind} that differ{'s' if kind == 'environment' else ''}"
        cut = 12 if kind in ("data", "code") else LONGEST  # of a hash, 48 bits tell two apart
        rows = [(d.name, *(("none" if v is None else v[:cut]) for v in (d.a, d.b))) for d in differences[:INPUTS]]
        yield from aligned([("", "A", "B"), *rows])
        if len(differences) > INPUTS:
            yield f"  ... and {len(differences) - INPUTS} more; --json lists all"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """The rows in columns, indented by two spaces."""
    table = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield f"  {'  '.join(cells)}".rstrip()


def _cell(text: str) -> str:
    line = safe_line(text)
    return line if len(line) <= LONGEST else f"...{line[3 - LONGEST :]}"


def counted(number: int, noun: str) -> str:
    """1 item, 2 items."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def decimal(value: float | None, *, signed: bool = False) -> str:
    """A number with four decimals; with three significant digits where these would hide it."""
    if value is None:
        return ""
    sign = "+" if signed and value > 0 else ""
    small = value != 0 and abs(value) < 0.0005
    return f"{sign}{value:.3g}" if small or abs(value) >= 100_000 else f"{sign}{value:.4f}"


def probability(p: float | None) -> str:
    """A p-value with four decimals."""
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def place_of(task: str, row: int) -> str:
    """Where the row of an item is, in a result folder."""
    return f"{RESULTS}/{table_stem(task)}.ndjson line {row + 1}"
