"""Membership inference: whether scores of the model tell train documents from held-out documents.

Each document gives one window, and all windows have the same number of tokens. Documents of one group, such as those
of a repository, are not independent: intervals draw groups, and evidence counts groups. `membership_controls` says when
the result is void. An area of 0.5 does not say that nothing leaks: extraction and exposure are measured apart, and
never merged with this.

Used by: safety_audit.battery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.inference.audit_files import AuditNumber, AuditPart
from codex_ml.safety_audit.audit_job import AuditJob, PartResult, skipped
from codex_ml.safety_audit.audit_windows import AuditWindow, held_out_windows, member_windows
from codex_ml.safety_audit.document_groups import with_groups
from codex_ml.safety_audit.membership_controls import (
    BLIND,
    blind_area,
    blind_control,
    own_text_control,
    unseen_area,
    unseen_control,
)
from codex_ml.safety_audit.membership_scores import (
    REFERENCE,
    SCORES,
    Documents,
    best_score,
    compared_scores,
    one_per_document,
    units_of,
)
from codex_ml.safety_audit.plot_tables import write_plot_table
from codex_ml.safety_audit.window_scores import held_out_targets, member_targets, reference_targets
from codex_ml.statistics.roc import SLACK, Scores, documents_needed

NAME, TITLE = "membership", "Membership inference"
ROC = "roc.csv"  # in the folder of plots
COLUMNS = ("score", "fpr", "tpr")
SIDES = ("train", "held-out")
POINTS = 60  # per curve
FEW = {"tpr_at_1_percent": 0.01, "tpr_at_01_percent": 0.001}  # shares of false positives
DISTINCT = 0.1  # the evidence must tell an area of 0.6, the limit of the gate, from one of 0.5


def membership(job: AuditJob) -> PartResult:
    """Score one window per document of train and of held-out text, and compare the scores."""
    if job.data.train_rows is None or job.data.held_out_rows is None:
        write_curves(job, {})
        return skipped(NAME, TITLE, "the training documents, or held-out documents, are not known")
    most, confidence, seed = job.settings.sizes.documents, job.settings.confidence, job.seed
    members, strangers = sides(job)
    inside = one_per_document(members, member_targets(job), most)
    outside = one_per_document(strangers, held_out_targets(job), most)
    tokenizer = job.subject.tokenizer
    reference, no_reference = reference_documents(job)
    found, why = compared_scores(tokenizer, inside, outside, reference=reference)
    write_curves(job, found)
    blind = blind_area(tokenizer, inside, outside, confidence=confidence, seed=seed)
    unseen = unseen_area(job, best_score(found), outside) if found else None
    units = {name: len(set(units_of(side))) for name, side in zip(SIDES, (inside, outside), strict=True)}
    part = AuditPart(
        title=TITLE,
        numbers={
            **areas(found, why, trials=min(units.values()), confidence=confidence, seed=seed),
            **(missing_reference(no_reference) if no_reference else {}),
            **true_positives(found, why, confidence=confidence, seed=seed),
            "blind": blind,
            **({"unseen": unseen} if unseen else {}),
        },
        controls=[
            blind_control(blind),
            own_text_control(job, [window for window, _ in outside]),
            *([unseen_control(unseen)] if unseen else ()),
        ],
        settings={
            "documents": dict(zip(SIDES, (len(inside), len(outside)), strict=True)),
            "independent units": units,
            "tokens": job.settings.prefix_tokens + job.settings.suffix_tokens,
            **({"best_score": best_score(found)} if found else {}),
        },
        notes=[
            f"The number auc is the largest of {len(found) or len(SCORES)} areas, so its value is a little too large. "
            "Its interval allows for that.",
        ],
    )
    return PartResult(NAME, part)


def sides(job: AuditJob) -> tuple[list[AuditWindow], list[AuditWindow]]:
    """The windows of train and of held-out text, with the groups of their documents."""

    def read() -> tuple[list[AuditWindow], list[AuditWindow]]:
        members, strangers = member_windows(job).windows, held_out_windows(job).windows
        return with_groups(job, members, held_out=False), with_groups(job, strangers, held_out=True)

    return job.once("membership_sides", read)


def reference_documents(job: AuditJob) -> tuple[tuple[Documents, Documents] | None, str]:
    """Score the windows of both sides with the reference model.

    All windows are scored, in the batches of the audited model, so a model that is its own reference has differences
    of exactly 0.

    Returns:
        ((train, held-out), as `one_per_document` gives them; None if they cannot be scored, and the reason for that)
    """
    reference, most = job.subject.reference, job.settings.sizes.documents
    if reference.load is None:
        return None, reference.why
    try:
        inside, outside = (one_per_document(side, reference_targets(job, side), most) for side in sides(job))
    except UserError as error:
        return None, f"the reference model cannot be used: {job.clean(str(error))}"
    if not all(np.isfinite(targets.nll).all() for side in (inside, outside) for _, targets in side):
        return None, "the reference model gives no finite loss for some text"
    return (inside, outside), ""


def missing_reference(why: str) -> dict[str, AuditNumber]:
    """The area of the score `reference` where it is not measured."""
    return {f"auc_{REFERENCE}": AuditNumber(value=None, trials=0, unit="area", control=BLIND, why=why)}


def areas(
    found: Mapping[str, Scores], why: str, *, trials: int, confidence: float, seed: int
) -> dict[str, AuditNumber]:
    """The area of each score, and as `auc` the largest one.

    The largest of k areas is large by chance k times as often as one of them, so its interval has the confidence
    1 - (1 - confidence) / k (Bonferroni).
    """
    largest = 1 - (1 - confidence) / (len(found) or len(SCORES))
    if not found:
        needed = documents_needed(DISTINCT, largest)
        return {"auc": AuditNumber(value=None, trials=trials, needed=needed, unit="area", control=BLIND, why=why)}

    def number(name: str, confidence: float) -> AuditNumber:
        limits = found[name].area_interval(confidence=confidence, seed=seed)
        return AuditNumber(
            value=found[name].area(),
            low=limits.low,
            high=limits.high,
            method=limits.method,
            trials=trials,
            needed=documents_needed(DISTINCT, confidence),
            unit="area",
            control=BLIND,
        )

    return {"auc": number(best_score(found), largest), **{f"auc_{name}": number(name, confidence) for name in found}}


def true_positives(found: Mapping[str, Scores], why: str, *, confidence: float, seed: int) -> dict[str, AuditNumber]:
    """True positives at few false ones, of the score with the largest area.

    A share of false positives below one held-out document cannot be seen, so then there is no number.
    """
    scores = found[best_score(found)] if found else None
    trials = scores.trials()[1] if scores else 0
    numbers = {}
    for name, share in FEW.items():
        needed = round(1 / share)
        if scores is None or trials < needed:
            few = f"{trials} independent held-out documents; {needed} are needed to see one false positive in {needed}"
            reason = why or few
            numbers[name] = AuditNumber(
                value=None, trials=trials, needed=needed, unit="share", control=BLIND, why=reason
            )
            continue
        limits = scores.true_positives_interval(share, confidence=confidence, seed=seed)
        numbers[name] = AuditNumber(
            value=scores.true_positives(share),
            low=limits.low,
            high=limits.high,
            method=limits.method,
            trials=trials,
            needed=needed,
            unit="share",
            control=BLIND,
        )
    return numbers


def write_curves(job: AuditJob, found: Mapping[str, Scores]) -> None:
    """Write roc.csv: up to `POINTS` points per score, evenly spaced in the logarithm of the false positives."""
    write_plot_table(
        job.plots / ROC,
        COLUMNS,
        (
            {"score": name, "fpr": false, "tpr": true}
            for name, scores in found.items()
            for false, true in thinned_curve(scores)
        ),
    )


def thinned_curve(scores: Scores) -> Iterator[tuple[float, float]]:
    """Points of a ROC curve: the true positives at no false one, and the last point before each step of the grid."""
    false, true = scores.curve()
    grid = np.concatenate([[0.0], np.geomspace(1 / len(scores.negatives), 1, POINTS - 1)])
    for place in np.unique(np.searchsorted(false, grid + SLACK, side="right") - 1):
        yield float(false[place]), float(true[place])
