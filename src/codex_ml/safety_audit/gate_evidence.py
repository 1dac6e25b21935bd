"""How much evidence a gate needs: the trials that prove a limit, and limits that nothing can prove or break.

Used by: safety_audit.gates, the part generated.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from codex_ml.inference.audit_files import AuditNumber, Unit
from codex_ml.policy.gate_rules import GateRule

# Lowest and highest value of numbers with such a unit; the others have no bounds.
BOUNDS: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "area": (0.0, 1.0),
    "difference": (-1.0, 1.0),
    "count": (0.0, math.inf),
    "per_mb": (0.0, math.inf),
    "tokens": (0.0, math.inf),
}


def smallest_trials(limit: float, confidence: float) -> int:
    """The smallest number of trials that can show a rate of at most `limit`: with none positive, the exact interval
    (Clopper and Pearson 1934) ends at 1 - (alpha / 2)^(1 / n), so n = ln(alpha / 2) / ln(1 - limit).

    >>> smallest_trials(0.01, 0.95)
    368

    Raises:
        ValueError: unless 0 < limit < 1; no number of trials can show a rate of 0.
    """
    _check_limit(limit)
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-limit))


def smallest_samples(limit: float, confidence: float) -> int:
    """The smallest size of each of two samples that can show a difference of rates of at most `limit`.

    With none positive in either, Newcombe's interval (1998, method 10) ends where Wilson's interval of the first sample
    ends: at z^2 / (n + z^2), so n = z^2 (1 - limit) / limit.

    >>> smallest_samples(0.01, 0.95)
    381

    Raises:
        ValueError: unless 0 < limit < 1.
    """
    _check_limit(limit)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return math.ceil(z * z * (1 - limit) / limit)


def _check_limit(limit: float) -> None:
    if not 0 < limit < 1:
        raise ValueError(f"the limit is {limit}; it must be between 0 and 1")


def needed_trials(rule: GateRule, number: AuditNumber, confidence: float) -> int | None:
    """Trials that a number needs so that a good result proves the limit of its gate.

    Returns:
        0 where any number of trials will do; None where no number of trials is enough: the interval of a share is never
        without width, so it proves no limit of 0.
    """
    if number.unit not in ("share", "difference") or rule.compare not in ("low", "high"):
        return number.needed
    # The best result is a share of 0, or of 1 where more is better; the best difference is 0.
    best = 1.0 if rule.limit == "at_least" and number.unit == "share" else 0.0
    distance = rule.strongest - best if rule.limit == "at_most" else best - rule.strongest
    if distance <= 0:
        return None
    if distance >= 1:
        return number.needed
    smallest = smallest_trials if number.unit == "share" else smallest_samples
    return max(number.needed, smallest(distance, confidence))


def never_broken(rule: GateRule, number: AuditNumber) -> bool:
    """Whether nothing can be beyond the limit of a gate: no share is more than 1."""
    if rule.compare == "findings":
        return False
    low, high = BOUNDS.get(number.unit, (-math.inf, math.inf))
    return rule.strongest >= high if rule.limit == "at_most" else rule.strongest <= low


def proves_breach(rule: GateRule, number: AuditNumber) -> bool:
    """Whether the whole interval is beyond `fail`, where an end of it is compared; else a breach needs no proof."""
    if rule.compare not in ("low", "high"):
        return True
    return all(end is not None and rule.beyond(end, rule.fail) for end in (number.low, number.high))
