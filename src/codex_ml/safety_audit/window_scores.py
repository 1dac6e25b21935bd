"""What the model says of each token of the audit's windows: one forward pass, whose result several parts read.

Used by: the parts near_verbatim and membership of safety_audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codex_ml.inference.likelihood import Scoring, Window, score_windows
from codex_ml.inference.targets import Targets
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import AuditWindow, held_out_windows, member_windows


def member_targets(job: AuditJob) -> list[Targets]:
    """Score all tokens of `member_windows(job).windows`, in their order; `mean` and `deviation` are among the columns.

    Raises:
        ValueError: if no train stream is known.
    """
    windows = [window.window for window in member_windows(job).windows]
    return job.once("member_targets", lambda: _tracked(job, windows, "score windows of train"))


def held_out_targets(job: AuditJob) -> list[Targets]:
    """Score all tokens of `held_out_windows(job).windows`, as `member_targets` does.

    Raises:
        ValueError: if no held-out stream is known.
    """
    windows = [window.window for window in held_out_windows(job).windows]
    return job.once("held_out_targets", lambda: _tracked(job, windows, "score held-out windows"))


def reference_targets(job: AuditJob, windows: Sequence[AuditWindow]) -> list[Targets]:
    """Score windows with the reference model, by the pass that scores them with the audited model.

    Raises:
        UserError: if the reference model cannot be loaded.
        ValueError: if there is none.
    """
    if job.subject.reference.load is None:
        raise ValueError(job.subject.reference.why)
    model = job.once("reference_model", job.subject.reference.load)
    return _tracked(job, [window.window for window in windows], "score windows with the reference", model)


def _tracked(job: AuditJob, windows: Sequence[Window], what: str, model: Any = None) -> list[Targets]:
    targets = score_all(model or job.subject.model, windows, batch_size=job.settings.batch_size)
    return list(job.track(targets, what, len(windows), "windows"))


def score_all(model: Any, windows: Sequence[Window], *, batch_size: int) -> Any:
    """Score all tokens of windows but the first of each, with their spread: an iterator of `Targets`, in order."""
    length = max((len(window.tokens) for window in windows), default=2) - 1
    return score_windows(model, windows, Scoring(length, batch_size=batch_size, spread=True))
