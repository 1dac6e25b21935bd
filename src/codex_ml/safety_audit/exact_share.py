"""A share of independent trials as a number of the audit. Used by: the parts of safety_audit."""

from __future__ import annotations

from codex_ml.inference.audit_files import AuditNumber
from codex_ml.statistics.proportions import clopper_pearson


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
        trials=trials,
        needed=needed,
        unit="share",
        control=control,
    )
