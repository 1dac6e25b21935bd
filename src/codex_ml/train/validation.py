"""Compute the validation loss of a run, with the averaged weights if there are any."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from codex_ml.core.errors import CheckFailed
from codex_ml.modeling.rows import IGNORE
from codex_ml.train import checkpoint
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.run import Run

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("codex_ml")


def validate(run: Run) -> dict[str, float]:
    """Compute the mean loss over fixed, evenly spaced validation rows; update the kept weights and early stopping.

    Collective: every process must call it.

    Returns:
        the point of the curves: val/loss, nats per target.

    Raises:
        CheckFailed: when the loss is not finite.
    """
    with weights_in_place(run, run.ema):
        mean = _mean_loss(run)
        if not math.isfinite(mean):
            raise CheckFailed(f"step {run.step}: the validation loss is {mean}; lower train.lr")
        weights = (lambda: checkpoint.copy_weights(run.model)) if run.writes or run.sharded else None
        run.best.offer(run.step, mean, weights, writes=run.writes)
    run.stopped_early = run.patience.update(mean)
    log.info("train: step %d of %d, validation loss %.4f nats", run.step, run.train.max_steps, mean)
    return {"val/loss": mean}


def measure_again(run: Run) -> None:
    """Validate the kept weights of an earlier run as this run does; early stopping restarts from the best of them.

    Collective: every process must call it. Weights whose loss is not finite here are not kept.
    """
    entries = []
    for entry, file in zip(run.best.entries, run.best.files(), strict=True):
        with weights_in_place(run, checkpoint.read_tensors(file)):
            loss = _mean_loss(run)
        log.info("train: the weights of step %d had %.4f nats, now %.4f", entry["step"], entry["val/loss"], loss)
        if math.isfinite(loss):
            entries.append({"step": entry["step"], "val/loss": loss})
    run.best.entries = sorted(entries, key=lambda entry: (entry["val/loss"], entry["step"]))
    run.patience.best = run.best.entries[0]["val/loss"] if entries else math.inf
    run.patience.waited, run.outdated = 0, False


@contextmanager
def weights_in_place(run: Run, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """Replace the model's weights inside the block; None leaves them."""
    if weights is None:
        yield
        return
    own = {name: p.detach().clone() for name, p in trainable_parameters(run.model).items()}
    checkpoint.load_weights(run.model, weights)
    try:
        yield
    finally:
        checkpoint.load_weights(run.model, own)


def _mean_loss(run: Run) -> float:
    import torch

    val_rows = run.recipe.val_rows
    count = min(run.train.eval_rows, len(val_rows))
    chosen = np.linspace(0, len(val_rows) - 1, count).astype(np.int64)
    own = chosen[run.accelerator.process_index :: run.accelerator.num_processes]
    # the same number of passes on every process: FSDP gathers parameters in each
    passes = -(-count // (run.accelerator.num_processes * run.micro_batch_size))
    loss, targets, device = 0.0, 0, run.accelerator.device
    run.model.eval()
    with torch.no_grad(), run.accelerator.autocast():
        for part in np.array_split(own, passes):
            batch = val_rows.batch(part if len(part) else chosen[:1])
            if not len(part):
                batch["labels"][:] = IGNORE
            tensors = {key: torch.from_numpy(value).to(device) for key, value in batch.items()}
            loss += float(summed_loss(run.model, tensors))
            targets += int((batch["labels"] != IGNORE).sum())
    sums = torch.tensor([loss, targets], dtype=torch.float64, device=device)
    loss, targets = run.accelerator.reduce(sums, "sum").tolist()
    return loss / targets
