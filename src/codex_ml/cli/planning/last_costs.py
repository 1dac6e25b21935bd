"""What the last run of each stage took, from the logs and dvc.lock.

Used by: `codex-ml plan`.
"""

from __future__ import annotations

from collections.abc import Sequence

from codex_ml.cli.planning.plan_schema import PlanCost, ProbeResult, StagePlan
from codex_ml.cli.run_history import runs_of
from codex_ml.core.pipeline import LOCK, Locked
from codex_ml.core.progress import duration
from codex_ml.core.yaml import read_yaml


def last_cost(stage: str, lock: dict[str, Locked]) -> PlanCost:
    """What the last run of a stage took."""
    ended = [run for run in runs_of(stage, experiments=False) if run.result == "done"]
    seconds, memory = (ended[-1].seconds, ended[-1].peak_memory_mb) if ended else (None, None)
    disk = _sizes().get(stage) if stage in lock else None
    basis = [f"logs/{stage}.ndjson"] * bool(ended) + [str(LOCK)] * (disk is not None)
    peak = None if memory is None else int(memory * 2**20)
    return PlanCost(seconds=seconds, peak_memory_bytes=peak, disk_bytes=disk, basis=", ".join(basis))


def _sizes() -> dict[str, int]:
    """Bytes of the outputs of each stage in dvc.lock."""
    stages = read_yaml(LOCK)["stages"]
    return {name: sum(out.get("size", 0) for out in body.get("outs", [])) for name, body in stages.items()}


def cost_in_words(cost: PlanCost) -> str:
    """A cost for people; "" where nothing is known."""
    said = []
    if cost.seconds is not None:
        said.append(duration(cost.seconds))
    if cost.peak_memory_bytes is not None:
        said.append(f"{_size(cost.peak_memory_bytes)} of memory")
    if cost.disk_bytes is not None:
        said.append(f"{_size(cost.disk_bytes)} of outputs")
    return ", ".join(said)


def total_in_words(steps: Sequence[StagePlan]) -> str:
    """The cost of what runs, and of what may run; "" where nothing runs or no run is recorded."""
    said = []
    for action, word in (("run", "runs"), ("maybe", "may run")):
        known = [step.cost.seconds for step in steps if step.action == action and step.cost.seconds is not None]
        if known:
            said.append(f"{duration(sum(known))} for what {word}")
    return f"by the last runs: {', '.join(said)}" if said else ""


def probe_in_words(probe: ProbeResult) -> str:
    """What a probe of train measured, for people."""
    pace = (
        f"{probe.steps} steps of train, {probe.seconds_per_step:.3g} s each after {probe.start_seconds:.0f} s of start"
    )
    memory = f"{_size(probe.peak_memory_bytes)} of memory at most"
    return f"probe: {pace}, {memory}; all steps take about {duration(probe.estimated_seconds)}, without validation"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
