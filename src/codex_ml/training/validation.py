"""The validation loss of a run, with the weights that would be kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from codex_ml.data.pack import IGNORE
from codex_ml.errors import CheckFailed
from codex_ml.modeling.adapters import trainable_parameters
from codex_ml.training import checkpoint
from codex_ml.training.loss import summed_loss
from codex_ml.training.run import Run

log = logging.getLogger("codex_ml")


def validate(run: Run) -> dict[str, float]:
    """Mean loss over a fixed, evenly spaced choice of validation rows; decides what is kept and whether to stop.

    Returns:
        the point of the curves: val/loss, nats a target.

    Raises:
        CheckFailed: when the loss is not finite.
    """
    with averaged_weights(run):
        mean = _mean_loss(run)
        if not math.isfinite(mean):
            raise CheckFailed(f"step {run.step}: the validation loss is {mean}; lower train.lr")
        weights = (lambda: checkpoint.copy_weights(run.model)) if run.writes or run.sharded else None
        run.best.offer(run.step, mean, weights, writes=run.writes)
    run.stopped_early = run.patience.update(mean)
    log.info("train: step %d of %d, validation loss %.4f nats", run.step, run.train.max_steps, mean)
    return {"val/loss": mean}


@contextmanager
def averaged_weights(run: Run) -> Iterator[None]:
    """Put the averaged weights into the model for a while, where there are some."""
    if run.ema is None:
        yield
        return
    own = {name: p.detach().clone() for name, p in trainable_parameters(run.model).items()}
    checkpoint.load_weights(run.model, run.ema)
    try:
        yield
    finally:
        checkpoint.load_weights(run.model, own)


def _mean_loss(run: Run) -> float:
    import torch

    count = min(run.train.eval_rows, len(run.val_rows))
    chosen = np.linspace(0, len(run.val_rows) - 1, count).astype(np.int64)
    own = chosen[run.accelerator.process_index :: run.accelerator.num_processes]
    passes = -(-count // (run.accelerator.num_processes * run.micro_batch_size))  # as many on each: shards meet in all
    loss, targets, device = 0.0, 0, run.accelerator.device
    run.model.eval()
    with torch.no_grad(), run.accelerator.autocast():
        for part in np.array_split(own, passes):
            batch = run.val_rows.batch(part if len(part) else chosen[:1])
            if not len(part):
                batch["labels"][:] = IGNORE
            tensors = {key: torch.from_numpy(value).to(device) for key, value in batch.items()}
            loss += float(summed_loss(run.model, tensors))
            targets += int((batch["labels"] != IGNORE).sum())
    sums = torch.tensor([loss, targets], dtype=torch.float64, device=device)
    loss, targets = run.accelerator.reduce(sums, "sum").tolist()
    return loss / targets
