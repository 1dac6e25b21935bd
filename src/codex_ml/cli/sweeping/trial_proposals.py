"""The parameters of the next trial.

A proposal is a function of the settings, its number and the trials before it, and of nothing else: no state of a
random generator is kept. So a sweep that was killed goes on with the same list.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codex_ml.cli.sweeping.search_space import SweepAxis
from codex_ml.cli.sweeping.sweep_journal import SweepTrial
from codex_ml.core.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

METHODS = ("grid", "random", "sobol", "tpe")
MOST_TRIALS = 10_000


def grid_size(axes: Sequence[SweepAxis]) -> int:
    """Number of combinations of a grid.

    Raises:
        UserError: when an axis has infinitely many values, or there are more than MOST_TRIALS.
    """
    size = math.prod(len(axis.values()) if axis.kind == "choice" else _whole(axis) for axis in axes)
    if size > MOST_TRIALS:
        raise UserError(f"the grid has {size} trials; at most {MOST_TRIALS} are allowed, --method sobol needs fewer")
    return size


def _whole(axis: SweepAxis) -> int:
    if axis.kind != "int":
        axis.values()  # raises
    return int(axis.high - axis.low) + 1


def grid(axes: Sequence[SweepAxis], number: int) -> dict[str, str]:
    """Combination `number` of the grid; the last axis changes fastest."""
    combination = next(itertools.islice(itertools.product(*(axis.values() for axis in axes)), number, None))
    return {axis.key: value for axis, value in zip(axes, combination, strict=True)}


def random(axes: Sequence[SweepAxis], number: int, *, seed: int) -> dict[str, str]:
    """Independent draws; trial n has the random stream of (seed, n)."""
    import numpy as np

    return _at(axes, np.random.default_rng([seed, number]).random(len(axes)).tolist())


def sobol(axes: Sequence[SweepAxis], number: int, *, seed: int) -> dict[str, str]:
    """Point `number` of a scrambled Sobol sequence: it covers the space more evenly than random draws (Owen 1998)."""
    import numpy as np
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(axes), scramble=True, rng=np.random.default_rng(seed))
    if number:  # scipy refuses to skip no point
        sequence.fast_forward(number)
    return _at(axes, sequence.random(1)[0].tolist())


def _at(axes: Sequence[SweepAxis], shares: Sequence[float]) -> dict[str, str]:
    return {axis.key: axis.at(share) for axis, share in zip(axes, shares, strict=True)}


def require_optuna() -> None:
    """Refuse --method tpe without the extra `sweep`, before any work.

    Raises:
        UserError: when optuna is not installed.
    """
    from importlib.util import find_spec

    from codex_ml.core.packages import install_extra

    if find_spec("optuna") is None:
        raise UserError(f"--method tpe needs optuna, which is not installed: {install_extra('sweep')}")


def tpe(
    axes: Sequence[SweepAxis], number: int, *, seed: int, before: Sequence[SweepTrial], direction: str
) -> dict[str, str]:
    """Proposal of optuna's TPE sampler (Bergstra et al. 2011) by ask and tell; its first 10 trials are random.

    The study is built anew from the trials before, with a sampler whose seed comes from (seed, number).
    """
    import numpy as np
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=own), direction="minimize" if direction == "min" else "maximize"
    )
    space = {axis.key: _distribution(axis) for axis in axes}
    study.add_trials([_told(trial, space, direction) for trial in before])
    asked = study.ask(space).params
    return {axis.key: axis.rounded(asked[axis.key]) if axis.kind.endswith("uniform") else str(asked[axis.key])
            for axis in axes}  # fmt: skip


def _distribution(axis: SweepAxis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind == "choice":
        return CategoricalDistribution(axis.options)
    if axis.kind == "int":
        return IntDistribution(int(axis.low), int(axis.high))
    return FloatDistribution(axis.low, axis.high, log=axis.kind == "loguniform")


def _told(trial: SweepTrial, space: dict[str, BaseDistribution], direction: str) -> FrozenTrial:
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    def back(key: str, text: str) -> Any:
        if isinstance(space[key], CategoricalDistribution):
            return text
        return int(text) if isinstance(space[key], IntDistribution) else float(text)

    state = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}.get(trial.state, TrialState.FAIL)
    sign = 1.0 if direction == "min" else -1.0  # the curve is a loss: lower is better, whatever the metric is
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        params={key: back(key, text) for key, text in trial.params.items()},
        distributions=space,
        intermediate_values={step: sign * loss for step, loss in trial.curve},
    )
