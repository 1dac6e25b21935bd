"""The training loop: one for every run, over accelerate.

Everything that decides the next step is in `Run`: the model, the optimizer, the step, the history and the best
validation. Data order is a pure function of (seed, step), so a run that resumes sees what it would have seen.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from codex_ml.config import Runtime, Train
from codex_ml.data.pack import IGNORE, Rows, rows_of_step
from codex_ml.errors import CheckFailed, UserError
from codex_ml.progress import duration, progress
from codex_ml.training import checkpoint, random_state
from codex_ml.training.device import Hardware
from codex_ml.training.loss import summed_loss
from codex_ml.training.schedule import learning_rate
from codex_ml.training.tracking import Tracker, system_metrics

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn, optim

log = logging.getLogger("codex_ml")


class Interrupted(CheckFailed):
    """The run was told to stop; it saved a checkpoint and can go on."""


@dataclass
class Run:
    """The state of a run between two steps."""

    accelerator: Accelerator
    model: nn.Module  # the plain one: for validation and saving
    forward: nn.Module  # the compiled one, or the same
    optimizer: optim.Optimizer
    train: Train
    rows: Rows
    val_rows: Rows
    seed: int
    scratch: Path
    keep: int
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)  # {"step": ..., "val/loss": ...}
    best_weights: dict[str, Tensor] | None = None


def train_model(
    model: nn.Module,
    rows: Rows,
    val_rows: Rows,
    *,
    train: Train,
    runtime: Runtime,
    hardware: Hardware,
    seed: int,
    scratch: Path,
    curves: Path,
    events: Path,
) -> dict[str, Any]:
    """Train to `max_steps`, or go on from the newest checkpoint in `scratch`; leaves the best weights in `model`.

    Args:
        scratch: folder of this run's checkpoints, named by its fingerprint.
        curves: folder for DVCLive.
        events: file for timings.

    Returns:
        numbers for metrics.json.

    Raises:
        UserError: when there is nothing to train on.
        CheckFailed: when a loss or a gradient is not finite; the update is not applied and a checkpoint is saved.
        Interrupted: after SIGTERM or SIGINT; a checkpoint is saved.
    """
    for name, stream in (("train", rows), ("val", val_rows)):
        if len(stream) == 0:
            raise UserError(f"the packed {name} stream has no row; add documents or lower pack.seq_len")
    run = _prepare(model, rows, val_rows, train, runtime, hardware, seed, scratch)
    history = _resume(run)
    tracker = Tracker(curves, events, history)
    try:
        with _stop_requested() as stop:
            _steps(run, tracker, stop, runtime)
    finally:
        tracker.finish(
            {"best_step": run.best.get("step"), "best_val_loss": run.best.get("val/loss")} if run.best else {}
        )
    if run.best_weights is not None:
        checkpoint.load_weights(run.model, run.best_weights)
    return dict(run.best)


def _prepare(
    model: nn.Module,
    rows: Rows,
    val_rows: Rows,
    train: Train,
    runtime: Runtime,
    hardware: Hardware,
    seed: int,
    scratch: Path,
) -> Run:
    import torch
    from accelerate import Accelerator
    from accelerate.utils import TorchDynamoPlugin

    dynamo = TorchDynamoPlugin(backend="inductor", dynamic=False) if hardware.compile else None
    accelerator = Accelerator(
        cpu=hardware.device == "cpu",
        mixed_precision="bf16" if hardware.precision == "bf16" else "no",
        dynamo_plugin=dynamo,
    )
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # norms and biases do not decay
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), eps=1e-8, fused=True)
    forward = accelerator.prepare_model(model)
    plain = accelerator.unwrap_model(forward, keep_torch_compile=False)
    return Run(accelerator, plain, forward, optimizer, train, rows, val_rows, seed, scratch, runtime.keep_checkpoints)


def _resume(run: Run) -> list[dict[str, Any]]:
    found = checkpoint.load_newest(run.scratch)
    if found is None:
        log.info("train: starting at step 0 of %d", run.train.max_steps)
        return []
    checkpoint.load_weights(run.model, found.weights)
    checkpoint.load_optimizer(run.model, run.optimizer, found.optimizer)
    random_state.restore(found.state["random"])
    run.step, run.best, run.best_weights = found.state["step"], found.state["best"], found.best
    log.info("train: resumed from the checkpoint of step %d of %d", run.step, run.train.max_steps)
    return list(found.state["history"])


def _save(run: Run, tracker: Tracker) -> None:
    checkpoint.save_checkpoint(
        run.scratch,
        step=run.step,
        weights=checkpoint.copy_weights(run.model),
        best=run.best_weights,
        optimizer=checkpoint.optimizer_tensors(run.model, run.optimizer),
        state={"best": run.best, "history": tracker.history, "random": random_state.capture()},
        keep=run.keep,
    )


def _steps(run: Run, tracker: Tracker, stop: Callable[[], int], runtime: Runtime) -> None:
    train, saved_at = run.train, run.step
    started, tokens = time.monotonic(), 0
    with progress("train", train.max_steps, "steps", style=runtime.progress, done=run.step) as advance:
        while run.step < train.max_steps:
            try:
                point = _one_step(run)
            except CheckFailed:
                if run.step > saved_at:
                    _save(run, tracker)
                raise
            run.step += 1
            tokens += train.micro_batch_size * train.accumulation * run.rows.seq_len
            last = run.step == train.max_steps
            if run.step % train.log_every == 0 or last:
                tracker.log({"step": run.step, **point})
                rate = tokens / (time.monotonic() - started)
                tracker.event(step=run.step, tokens_per_second=round(rate, 1), **point, **system_metrics())
            if run.step % train.eval_every == 0 or last:
                _validate(run, tracker)
            signal_number = stop()
            if run.step % train.checkpoint_every == 0 or last or signal_number:
                _save(run, tracker)
                saved_at = run.step
            advance(1)
            if signal_number and not last:
                name = signal.Signals(signal_number).name
                raise Interrupted(
                    f"{name}: saved the checkpoint of step {run.step} of {train.max_steps}; "
                    "run the same command again to go on from there"
                )
    log.info("train: %d tokens in %s", tokens, duration(time.monotonic() - started))


def _one_step(run: Run) -> dict[str, float]:
    """One optimizer step: gradients of the summed loss over the window, divided by its number of targets.

    Dividing once by the count of the whole window, instead of averaging averages, makes (8 rows x 1), (2 x 4) and
    (1 x 8) the same step also where rows have unequal numbers of targets.
    """
    import torch

    train = run.train
    window = rows_of_step(
        len(run.rows), step=run.step, batch_rows=train.micro_batch_size * train.accumulation, seed=run.seed
    )
    batches = [run.rows.batch(part) for part in np.split(window, train.accumulation)]
    targets = sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)
    run.forward.train()
    total = torch.zeros((), device=run.accelerator.device)
    for batch in batches:
        tensors = {key: torch.from_numpy(value).to(run.accelerator.device) for key, value in batch.items()}
        loss = summed_loss(run.forward, tensors) / targets
        run.accelerator.backward(loss)
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), train.clip_norm)
    mean_loss, gradient_norm = float(total), float(norm)
    if not (math.isfinite(mean_loss) and math.isfinite(gradient_norm)):
        run.optimizer.zero_grad(set_to_none=True)
        raise CheckFailed(
            f"step {run.step + 1}: the loss is {mean_loss} and the gradient norm {gradient_norm}; the update was not "
            f"applied. Rows {window[:8].tolist()}... of the packed stream. Lower train.lr or train.clip_norm"
        )
    lr = learning_rate(run.step, train)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return {"train/loss": mean_loss, "train/grad_norm": gradient_norm, "train/lr": lr}


def _validate(run: Run, tracker: Tracker) -> None:
    """Mean loss over a fixed, evenly spaced choice of validation rows; remembers the best weights."""
    import torch

    count = min(run.train.eval_rows, len(run.val_rows))
    chosen = np.linspace(0, len(run.val_rows) - 1, count).astype(np.int64)
    loss, targets = 0.0, 0
    run.model.eval()
    with torch.no_grad():
        for part in np.array_split(chosen, -(-count // run.train.micro_batch_size)):
            batch = run.val_rows.batch(part)
            tensors = {key: torch.from_numpy(value).to(run.accelerator.device) for key, value in batch.items()}
            loss += float(summed_loss(run.model, tensors))
            targets += int((batch["labels"] != IGNORE).sum())
    mean = loss / targets
    if not math.isfinite(mean):
        raise CheckFailed(f"step {run.step}: the validation loss is {mean}; lower train.lr")
    tracker.log({"step": run.step, "val/loss": mean})
    log.info("train: step %d of %d, validation loss %.4f nats", run.step, run.train.max_steps, mean)
    if not run.best or mean < run.best["val/loss"]:
        run.best = {"step": run.step, "val/loss": mean}
        run.best_weights = checkpoint.copy_weights(run.model)


@contextmanager
def _stop_requested() -> Iterator[Callable[[], int]]:
    """SIGTERM and SIGINT ask the loop to stop after the step; a second SIGINT stops at once."""
    received = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            raise KeyboardInterrupt
        received = number

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
