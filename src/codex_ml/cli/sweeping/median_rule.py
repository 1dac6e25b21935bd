"""The median rule: stop a trial whose best validation loss so far is worse than what most trials had at that step.

Google Vizier (Golovin et al. 2017, section 3.2.1) and optuna's MedianPruner use it. The rule depends on steps and
losses only, never on when it is asked. So a trial that is stopped late, or that ended before it could be stopped, is
recorded as stopped at the same step, with the same curve.

Used by: `codex-ml sweep --stop-early`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

FEWEST = 4  # finished trials that must have a loss at the step

Curve = Sequence[tuple[int, float]]  # (step, validation loss), by step


def stop_index(curve: Curve, finished: Sequence[Curve]) -> int | None:
    """The index in `curve` of the first point that ends the trial, or None.

    Args:
        curve: of the trial.
        finished: curves of the trials before it that ran to their end.

    >>> others = [[(10, 3.0), (20, 2.0)], [(10, 3.2), (20, 2.2)], [(10, 3.4), (20, 2.4)], [(10, 3.6), (20, 2.6)]]
    >>> stop_index([(10, 3.2), (20, 2.9)], others)  # medians 3.3 and 2.3
    1
    """
    losses = [dict(other) for other in finished]
    best = float("inf")
    for index, (step, loss) in enumerate(curve):
        best = min(best, loss)
        there = [own[step] for own in losses if step in own]
        if len(there) >= FEWEST and best > statistics.median(there):
            return index
    return None
