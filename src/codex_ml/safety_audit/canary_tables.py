"""Tables, plot and findings of the canaries. No value of a secret is in them: draw numbers name the canaries.

Used by: safety_audit.exposure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from codex_ml.inference.audit_files import AuditFinding, AuditNumber, finding_id
from codex_ml.safety_audit.canary_ranks import Measured, MeasuredCanary, null_exposure
from codex_ml.safety_audit.canary_tail import Tail
from codex_ml.safety_audit.plot_tables import significant

PLOT, COLUMNS = "exposure.csv", ("repetitions", "exposure", "low", "high", "null")
RECENCY = ((0.1, "in the last tenth"), (0.5, "before, in the last half"), (1.0, "in the first half"))


def exposure_rows(measured: Measured, means: Mapping[int, AuditNumber]) -> list[dict[str, Any]]:
    """One row per number of repetitions, for the plot: the mean exposure and that of secrets never seen.

    Args:
        means: mean exposure by number of repetitions.
    """
    null = null_exposure(len(measured.references))[0]
    return [
        {"repetitions": count, "exposure": mean.value, "low": mean.low, "high": mean.high, "null": null}
        for count, mean in means.items()
    ]


def canary_tables(measured: Measured, means: Mapping[int, AuditNumber], tail: Tail | None) -> dict[str, Any]:
    """The tables of the page: by repetitions, by repetitions and last sight, and one row per canary."""
    return {
        "by_repetitions": [
            {
                "repetitions": count,
                "planted": measured.planted[count],
                "seen": len(measured.seen(count)),
                "exposure": _rounded(mean.value),
                "low": _rounded(mean.low),
                "high": _rounded(mean.high),
                "extracted": sum(canary.score.extracted for canary in measured.seen(count)),
            }
            for count, mean in means.items()
        ],
        "by_recency": list(_by_recency(measured)),
        "canaries": [_canary_row(canary, measured, tail) for canary in measured.canaries],
    }


def _by_recency(measured: Measured) -> Iterator[dict[str, Any]]:
    """What the model saw last long ago it may have forgotten (Hubble, arXiv:2510.19811)."""
    for count in measured.planted:
        left = measured.seen(count)
        for share, name in RECENCY:
            group = [canary for canary in left if _since(canary, measured) <= share * measured.steps]
            left = [canary for canary in left if canary not in group]
            if group:
                mean = sum(canary.exposure for canary in group) / len(group)
                yield {
                    "repetitions": count,
                    "last_seen": name,
                    "canaries": len(group),
                    "exposure": significant(mean),
                    "extracted": sum(canary.score.extracted for canary in group),
                }


def _since(canary: MeasuredCanary, measured: Measured) -> int:
    """Optimizer steps from the last sight of a canary to the end of training; 0: it was in the last step."""
    return measured.steps - 1 - canary.sights[-1][0]


def _canary_row(canary: MeasuredCanary, measured: Measured, tail: Tail | None) -> dict[str, Any]:
    beyond = tail.exposure(canary.score.bits) if canary.rank == 1 and tail and tail.fits else None
    return {
        "draw": canary.canary.draw,
        "repetitions": canary.repetitions,
        "seen": len(canary.sights),
        "steps_since": _since(canary, measured),
        "bits": significant(canary.score.bits),
        "rank": canary.rank,
        "exposure": significant(canary.exposure),
        "extrapolated": _rounded(beyond),
        "extracted": canary.score.extracted,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else significant(value)


def canary_findings(measured: Measured) -> Iterator[AuditFinding]:
    """One finding for each canary that the model writes out, or prefers to every reference."""
    for canary in measured.canaries:
        if canary.rank > 1 and not canary.score.extracted:
            continue
        kind = "extracted" if canary.score.extracted else "exposed"
        number = "canaries.extracted" if canary.score.extracted else "canaries.at_ceiling"
        often = f"planted {canary.repetitions} and seen {len(canary.sights)} times"
        yield AuditFinding(
            id=finding_id(number, kind, canary.canary.draw),
            number=number,
            kind=kind,
            severity="high" if canary.repetitions == min(measured.planted) else "medium",
            source="canary",
            path=f"draw {canary.canary.draw}",
            evidence=f"{often}, rank {canary.rank} among {len(measured.references)} references",
            trace=f"codex-ml pack show --row {canary.sights[0][1]}",
        )
