"""The number of reports/STAGE/metrics.json that ranks the trials. Used by: `codex-ml sweep`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import parse_json_file

LISTED = 10  # names in a message, where none is close


def number_at(metrics: Any, name: str) -> float | None:
    """The number with a dotted name; None where the name leads to nothing, or to something else.

    >>> number_at({"val": {"loss": 2}}, "val.loss"), number_at({"val": {"loss": 2}}, "val")
    (2.0, None)
    """
    for part in name.split("."):
        metrics = metrics.get(part) if isinstance(metrics, dict) else None
    return float(metrics) if isinstance(metrics, int | float) and not isinstance(metrics, bool) else None


def refuse_unknown_number(stage: str, name: str) -> None:
    """Refuse a number that the last run of a stage did not write, before the first trial.

    Where the stage has not run, any name may be right, and the first trial shows it.

    Raises:
        UserError: with the closest names.
    """
    file = Path(f"reports/{stage}/metrics.json")
    if not file.is_file():
        return
    metrics = parse_json_file(file.read_bytes(), str(file))
    if number_at(metrics, name) is not None:
        return
    known = [path for path in _paths(metrics) if number_at(metrics, path) is not None]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    more = ", ..." if len(known) > LISTED else ""
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known[:LISTED]) or 'none'}{more}."
    raise UserError(
        f"--metric {stage}.{name}: {file} of the last run has no number {name}; {hint} If only other settings write "
        f"it, run `dvc repro {stage}` with them first, and commit"
    )


def _paths(metrics: Any) -> Iterator[str]:
    """The dotted name of each leaf."""
    for key, inner in metrics.items() if isinstance(metrics, dict) else ():
        if isinstance(inner, dict):
            yield from (f"{key}.{path}" for path in _paths(inner))
        else:
            yield key
