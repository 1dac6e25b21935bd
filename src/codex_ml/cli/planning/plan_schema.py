"""The JSON object that `codex-ml plan --json` prints.

Used by: `codex-ml plan`.
"""

from __future__ import annotations

from typing import Any, Literal

from codex_ml.core.contract import Contract

Action = Literal["stay", "restore", "run", "maybe", "record", "fail"]


class PlanReason(Contract):
    """One reason why a stage does not stay as it is.

    Attributes:
        kind: what changed; "comment" for code in which only comments, docstrings or layout changed; "upstream" for a
            dep whose new contents are known only when another stage has run.
        name: a dotted key of params.yaml, or a path.
        text: the whole reason for people, on one line.
        old: the recorded value of a parameter; null where there was none.
        new: the value of the parameter in params.yaml; null where there is none.
    """

    kind: Literal["param", "code", "comment", "data", "out", "command", "never_ran", "upstream", "missing"]
    name: str
    text: str
    old: Any = None
    new: Any = None


class PlanCost(Contract):
    """What the last run of a stage took, and so what the next one may take; null where nothing is recorded.

    Attributes:
        seconds: wall time.
        peak_memory_bytes: of the processes of the stage.
        disk_bytes: size of the outputs, each counted once: DVC's cache may hold a copy.
        basis: where the numbers are from, and by which factor the time was scaled.
    """

    seconds: float | None
    peak_memory_bytes: int | None
    disk_bytes: int | None
    basis: str


class StagePlan(Contract):
    """What `dvc repro` does with one stage.

    Attributes:
        stage: its name; the path of a .dvc file for data that `dvc add` tracks.
        action: "stay": up to date. "restore": DVC checks the outputs out of its run cache. "run": the command runs,
            unless `waits_for` is not empty and the run cache has a run on what those stages then write. "maybe": runs,
            or is restored, only if one of `waits_for` writes other bytes. "record": DVC hashes changed data of a .dvc
            file. "fail": DVC cannot run the stage.
        in_dry_run: whether `dvc repro --dry` names the stage. It looks at the workspace as it is, so it also names
            a stage whose changed input an earlier stage restores, and does not see what earlier stages change.
        made_by: the commit or the experiment that made what is restored; "" for the other actions.
        waits_for: stages that run or may run first, and whose outputs this stage reads.
    """

    stage: str
    action: Action
    in_dry_run: bool
    why: list[PlanReason]
    made_by: str
    waits_for: list[str]
    cost: PlanCost


class ReproPlan(Contract):
    """What `dvc repro` does: stages in the order in which DVC visits them.

    Attributes:
        exit_code: 0: nothing to do. 3: something would run or be restored. 1: a stage would fail.
        probe: what real training steps measured, with --probe.
    """

    stages: list[StagePlan]
    exit_code: Literal[0, 1, 3]
    probe: ProbeResult | None = None

    @property
    def only_comments(self) -> bool:
        """Whether all that is to do is because of comments, docstrings or layout, so that no stage needs to run."""
        kinds = {reason.kind for step in self.stages for reason in step.why}
        return "comment" in kinds and not kinds - {"comment", "upstream", "never_ran"}


class ProbeResult(Contract):
    """What some real training steps on a scratch copy measured.

    Attributes:
        steps: optimizer steps that ran; the first two, which build kernels, are not timed.
        seconds_per_step: median of the timed steps.
        start_seconds: from the start of the process until the timed steps.
        peak_memory_bytes: of the training process and those that it started.
        estimated_seconds: of all of train.max_steps, without validations and checkpoints.
    """

    steps: int
    seconds_per_step: float
    start_seconds: float
    peak_memory_bytes: int
    estimated_seconds: float
