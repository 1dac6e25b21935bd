"""Save a run and continue it: from its own newest checkpoint, or from that of another run (`train.resume_from`)."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.events import event
from codex_ml.train import checkpoint, random_state
from codex_ml.train.history import HISTORY, History
from codex_ml.train.identity import differences, shown
from codex_ml.train.run import Run
from codex_ml.train.sharding import placed_like
from codex_ml.train.training_memory import largest_pass

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("codex_ml")


def resume(run: Run) -> None:
    """Continue from the newest checkpoint in the scratch folder, or from the run that `train.resume_from` names.

    With runtime.resume false, the checkpoints in the scratch folder are removed first.

    Sets `run.history` to the points up to that step. If it sets `run.outdated`, the caller must validate the kept
    weights again before the next step.

    Raises:
        UserError: when the run that `train.resume_from` names cannot be continued with these parameters and data.
    """
    if not run.recipe.runtime.resume:
        _forget(run)
    found = checkpoint.load_newest(run.scratch)
    if found is not None:
        _restore(run, found)
        log.info("train: resumed from the checkpoint of step %d of %d", run.step, run.train.max_steps)
        if run.writes:
            run.history = History(run.scratch / HISTORY, found.state["history"]["bytes"])
        return
    points: Iterator[dict[str, Any]] = iter(())
    if run.train.resume_from:
        found = _other_run(run)
        _restore(run, found)
        points = _continue(run, found)
    else:
        run.processes = [run.accelerator.num_processes]
        log.info("train: starting at step 0 of %d", run.train.max_steps)
    if run.writes:
        run.history = History(run.scratch / HISTORY)
        for point in points:
            run.history.append(point)


def _forget(run: Run) -> None:
    """Remove what an interrupted run of the same recipe left, and say so. Collective: every process must call it.

    Ignoring it would not do: its checkpoints have higher steps, so the next interruption would resume from them.
    """
    if run.writes and (step := checkpoint.newest_step(run.scratch)):
        log.warning("train: runtime.resume is false: the checkpoint of step %d is ignored and removed", step)
    if run.writes:
        for left in run.scratch.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    run.accelerator.wait_for_everyone()


def _other_run(run: Run) -> checkpoint.Checkpoint:
    """The last checkpoint of the finished run that `train.resume_from` names.

    Raises:
        UserError: when it is missing, damaged or of another run, or when no step is left.
    """
    folder = Path(run.train.resume_from) / "last"
    if problem := checkpoint.damage(folder):
        raise UserError(
            f"train.resume_from: {folder} is not a complete checkpoint ({problem}); name a copy of models/checkpoints"
        )
    found = checkpoint.load_checkpoint(folder)
    if "identity" not in found.state:
        raise UserError(
            f"train.resume_from: {folder} was written by an earlier version and does not say what it was trained on; "
            "train it again, or start from its weights: copy models/model to models/base and name it in model.path"
        )
    if changed := differences(found.state["identity"], run.identity, "fixed"):
        raise UserError(
            f"train.resume_from: {folder} is another run: {shown(changed)}. Restore the old values, or start a new "
            "run from its weights: copy models/model to models/base and name it in model.path"
        )
    done, planned = found.state["step"], found.state["max_steps"]
    if done >= run.train.max_steps:
        raise UserError(
            f"train.resume_from: {folder} has done {done} steps of {planned}, and train.max_steps is "
            f"{run.train.max_steps}; raise it"
        )
    return found


def _continue(run: Run, found: checkpoint.Checkpoint) -> Iterator[dict[str, Any]]:
    """Record how this run differs from the continued one; return the points of that one that are still valid."""
    before = found.state["identity"]
    measured, settings = (differences(before, run.identity, group) for group in ("measured", "settings"))
    run.outdated, run.stopped_early = bool(measured), False
    run.continued.append({"step": run.step, "changed": {**measured, **settings}, "best_measured_again": run.outdated})
    where = f"step {run.step} in {run.train.resume_from}"
    log.info("train: resumed from the checkpoint of %s, now to %d steps", where, run.train.max_steps)
    if settings:
        log.info("train: from here on %s", shown(settings))
    if other := _other_versions(found.state.get("environment"), run.environment):
        log.warning("train: the checkpoint was written with %s: from here on not the same bits", other)
    if not measured:
        return found.points()
    log.warning(
        "train: %s: the kept weights are validated again, early stopping restarts, and the curves leave out the "
        "validation losses up to here", shown(measured),
    )  # fmt: skip
    return (point for point in found.points() if "val/loss" not in point)


def _other_versions(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """What differs between two environments, at most three; "" where nothing does or the checkpoint does not say."""
    flat = [{**found.get("packages", {}), **{k: found[k] for k in ("python", "machine") if k in found}}
            for found in (before or now, now)]  # fmt: skip
    names = sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
    parts = [f"{name} {flat[0].get(name) or 'absent'} (here {flat[1].get(name) or 'absent'})" for name in names]
    return ", ".join(parts[:3]) + (f", and {len(parts) - 3} more" if len(parts) > 3 else "")


def _restore(run: Run, found: checkpoint.Checkpoint) -> None:
    """Restore everything that a checkpoint holds except its history."""
    state = found.state
    checkpoint.load_weights(run.model, found.weights)
    checkpoint.load_optimizer(run.model, run.optimizer, found.optimizer)
    if run.ema is not None:
        for name, average in run.ema.items():
            average.copy_(placed_like((found.ema or found.weights)[name], average))
        # earlier versions averaged from the first step on and did not count; a run without an average starts one
        run.averaged = state.get("averaged", state["step"] - state["skipped"]) if found.ema else 0
    if run.writes:
        run.best.restore(state["best"], found.folder / checkpoint.BEST)
    run.best.entries = [dict(entry) for entry in state["best"][: run.best.keep]]
    run.accelerator.wait_for_everyone()
    run.step, run.skipped, run.continued = state["step"], state["skipped"], list(state["continued"])
    run.patience.best = math.inf if state["patience"]["best"] is None else state["patience"]["best"]
    run.patience.waited = state["patience"]["waited"]
    run.stopped_early = state["stopped_early"]
    before, now = state["processes"], run.accelerator.num_processes
    run.processes = before if before[-1] == now else [*before, now]
    run.micro_batch_size = largest_pass(run.rows_a_step // now, min(run.micro_batch_size, state["micro_batch_size"]))
    if run.accelerator.scaler is not None and state["scaler"]:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    if before[-1] == now:
        random_state.restore(state["random"][run.accelerator.process_index])
    else:
        log.warning(
            "train: %d processes before, %d now: the same rows in the same order, not the same bits", before[-1], now
        )


def save(run: Run) -> None:
    """Write a checkpoint. Collective: every process must call it."""
    from accelerate.utils import gather_object

    states = gather_object([random_state.capture()])
    tensors = _tensors(run) if run.writes or run.sharded else {}
    if run.history is not None:
        scaler, keep = run.accelerator.scaler, run.recipe.runtime.keep_checkpoints
        state = {
            "identity": run.identity,
            "environment": run.environment,
            "continued": run.continued,
            "max_steps": run.train.max_steps,
            "best": run.best.entries,
            "patience": {
                "best": run.patience.best if math.isfinite(run.patience.best) else None,
                "waited": run.patience.waited,
            },
            "stopped_early": run.stopped_early,
            "skipped": run.skipped,
            **({"averaged": run.averaged} if run.ema is not None else {}),
            "micro_batch_size": run.micro_batch_size,
            "processes": run.processes,
            "scaler": scaler.state_dict() if scaler is not None else {},
            "history": run.history.mark(),
            "random": states,
        }
        checkpoint.save_checkpoint(
            run.scratch, step=run.step, tensors=tensors, best=run.best.files(), state=state, keep=keep
        )
        run.best.drop_others()
        log.info(
            "train: saved the checkpoint of step %d", run.step, extra=event("checkpoint", quiet=True, step=run.step)
        )
    run.accelerator.wait_for_everyone()


def _tensors(run: Run) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint, gathered and on the CPU. Collective when the model is sharded."""
    tensors = {
        "model": checkpoint.copy_weights(run.model),
        "optimizer": checkpoint.optimizer_tensors(run.model, run.optimizer),
    }
    if run.ema is not None:
        tensors["ema"] = {name: checkpoint.on_cpu(average) for name, average in run.ema.items()}
    return tensors
