"""A share of trials, and a difference of two shares, as numbers of the audit. Used by: the parts of safety_audit."""

from __future__ import annotations

from codex_ml.inference.audit_files import AuditNumber
from codex_ml.statistics.proportions import clopper_pearson
from codex_ml.statistics.share_difference import difference_of_shares


def exact_share(
    positive: int, trials: int, *, confidence: float, why: str, needed: int = 0, control: str = ""
) -> AuditNumber:
    """Return positive / trials with its exact interval (Clopper and Pearson 1934).

    Args:
        why: the reason why there is no value, where there are no trials.
        needed, control: see `AuditNumber`.
    """
    if not trials:
        return AuditNumber(value=None, trials=0, needed=needed, unit="share", control=control, why=why)
    limits = clopper_pearson(positive, trials, confidence=confidence)
    return AuditNumber(
        value=positive / trials,
        low=limits.low,
        high=limits.high,
        method=limits.method,
        trials=trials,
        needed=needed,
        unit="share",
        control=control,
    )


def excess_share(train: tuple[int, int], held_out: tuple[int, int], *, confidence: float, control: str) -> AuditNumber:
    """Return the share of train text minus the share of held-out text, with the interval of two independent shares.

    Its trials are those of the smaller sample.

    Args:
        train, held_out: positive windows, and all of them.
        control: see `AuditNumber`.
    """
    trials = min(train[1], held_out[1])
    if not trials:
        why = f"there is no window of {'held-out' if train[1] else 'train'} text"
        return AuditNumber(value=None, trials=0, unit="difference", control=control, why=why)
    limits = difference_of_shares(train, held_out, confidence=confidence)
    return AuditNumber(
        value=train[0] / train[1] - held_out[0] / held_out[1],
        low=limits.low,
        high=limits.high,
        method=limits.method,
        trials=trials,
        unit="difference",
        control=control,
    )
