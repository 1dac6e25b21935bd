"""One optimizer step: an update by the gradient of the mean loss over the targets of a window of rows.

The calls of one step, in order:

    rows_of_step             numbers of the rows of the window, from seed and step alone
    rates_of                 the learning rates of this step
    Rows.batch               each micro-batch of this process: ids, labels and positions from the packed file
    row_logits               forward pass; no document sees another one
    training_loss            sum of -ln p over the targets of the micro-batch
    accelerator.backward     adds the gradient of the scaled sum; the last micro-batch also averages over the processes
    clip_grad_norm_          limits the norm of the whole gradient
    optimizer.step           Muon and AdamW, or AdamW, unless the loss or the norm is not finite
    lerp_                    moves the averaged weights (train.ema)
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.out_of_memory import is_out_of_memory
from codex_ml.modeling.rows import IGNORE, rows_of_step
from codex_ml.train.loss import training_loss
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.optimizer import rates_of, set_rates
from codex_ml.train.run import Run
from codex_ml.train.sharding import whole

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("codex_ml")


def optimizer_step(run: Run) -> dict[str, float]:
    """Do the next step. The caller must then increment `run.step`.

    The summed loss is divided once by the number of targets of the whole window; means are not averaged. So (8 rows x
    1), (2 x 4) and (1 x 8) are the same step, even if rows have different numbers of targets, and one process does the
    same step as several.

    Returns:
        the point of the curves: train/loss in nats per target, train/grad_norm before clipping, and the rates
        (train/lr, train/embedding_lr). If the update was skipped, the rates only.

    Raises:
        CheckFailed: when the loss or the gradient is not finite more often than `train.max_skipped_steps` allows; this
            update is not applied.
        UserError: when not even one row fits into memory.
    """
    window = rows_of_step(len(run.rows), step=run.step, batch_rows=run.rows_a_step, seed=run.recipe.seed)
    now = rates_of(run.recipe.optimizer, run.step, run.train)
    loss, norm = _gradients(run, window)
    overflow = run.accelerator.scaler is not None and math.isfinite(loss)  # fp16: the scaler skips and lowers its scale
    if not (math.isfinite(loss) and (math.isfinite(norm) or overflow)):
        run.optimizer.zero_grad(set_to_none=True)
        _skip(run, window, loss, norm)
        return now
    set_rates(run.optimizer, run.step, run.train)
    _update(run)
    return {"train/loss": loss, "train/grad_norm": norm if math.isfinite(norm) else 0.0, **now}


def _gradients(run: Run, window: NDArray[np.int64]) -> tuple[float, float]:
    """Leave the clipped gradient in the parameters; return (mean loss, norm before clipping), equal on all ranks."""
    import torch

    own = window[run.accelerator.process_index :: run.accelerator.num_processes]
    while True:
        try:
            total, targets = _accumulate(run, own)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            run.optimizer.zero_grad(set_to_none=True)
        _halve(run)  # here, after the frames of the failed pass, and their tensors, are gone
    scaler = run.accelerator.scaler
    if scaler is not None:
        scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(run.model).values(), run.train.clip_norm)
    run.trained_tokens += targets
    return float(run.accelerator.reduce(total, "sum")), float(whole(norm))


def _accumulate(run: Run, own: NDArray[np.int64]) -> tuple[Tensor, int]:
    """Add up the gradients of this process's rows.

    Returns:
        (its part of the mean loss, a float32 scalar; the targets of the whole window)

    With P processes and n targets in the whole window:

        summed_loss  = sum of the losses of the targets of one micro-batch
        loss         = summed_loss / n             its part of the mean over the window
        gradient     = d(loss * P)                 per micro-batch, added up over the micro-batches of a process
        all-reduce   = sum of gradients / P        over the processes: the P above cancels
    """
    import torch

    run.forward.train()
    device, processes = run.accelerator.device, run.accelerator.num_processes
    batches = [run.rows.batch(part) for part in np.split(own, len(own) // run.micro_batch_size)]
    targets = torch.tensor(sum(int((batch["labels"] != IGNORE).sum()) for batch in batches), device=device)
    targets = run.accelerator.reduce(targets, "sum")
    total = torch.zeros((), device=device)
    for number, batch in enumerate(batches, 1):
        tensors = {key: torch.from_numpy(value).to(device) for key, value in batch.items()}
        last = number == len(batches)
        if run.sharded:
            run.model.set_requires_gradient_sync(last)
        with nullcontext() if last else run.accelerator.no_sync(run.forward):  # all-reduce on the last micro-batch only
            loss = training_loss(run.forward, tensors, run.train) / targets
            run.accelerator.backward(loss * processes)
        total += loss.detach()
    return total, int(targets)


def _halve(run: Run) -> None:
    """Halve the rows per pass and double the passes: the same step in less memory."""
    if run.micro_batch_size % 2 or run.accelerator.num_processes > 1:
        raise UserError(
            f"out of memory with {run.micro_batch_size} rows per forward pass; lower train.micro_batch_size (and raise "
            "train.accumulation), or set train.activation_checkpointing"
        )
    run.micro_batch_size //= 2
    log.warning(
        "train: step %d ran out of memory; from now on %d rows per pass, %d passes per step",
        run.step + 1, run.micro_batch_size, run.rows_a_step // run.micro_batch_size,
    )  # fmt: skip


def _skip(run: Run, window: NDArray[np.int64], loss: float, norm: float) -> None:
    run.skipped += 1
    documents = sorted({int(number) for row in window.tolist() for number in run.rows.documents(row)})[:8]
    found = (
        f"step {run.step + 1}: the loss is {loss} and the gradient norm {norm}; the update was not applied. Documents "
        f"{documents}... of the train stream (`codex-ml pack show --step {run.step + 1}`)."
    )
    if run.skipped > run.train.max_skipped_steps:
        raise CheckFailed(f"{found} Lower train.lr or train.clip_norm, or allow train.max_skipped_steps")
    log.warning("train: %s Skipped, %d of %d", found, run.skipped, run.train.max_skipped_steps)


def _update(run: Run) -> None:
    scaler = run.accelerator.scaler
    if scaler is None:
        run.optimizer.step()
    else:
        scaler.step(run.optimizer)
        scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.averaged += 1
        share = newest_share(run.train.ema, run.averaged)
        for name, parameter in trainable_parameters(run.model).items():
            run.ema[name].lerp_(parameter.detach(), share)


def newest_share(decay: float, updates: int) -> float:
    """Share of the newest weights in the average of the weights after each of the first `updates` updates.

    The average of Adam's moments, with its correction of the bias (Kingma and Ba 2015, section 3), as a recursion:

        m_t = decay m_(t-1) + (1 - decay) w_t,  m_0 = 0
        a_t = m_t / (1 - decay^t) = a_(t-1) + share_t (w_t - a_(t-1)),  share_t = (1 - decay) / (1 - decay^t)

    share_1 is 1, so the weights at the start count for nothing. Without the correction their share after 600 steps at
    0.999 is 0.999^600 = 55 %.

    >>> newest_share(0.5, 1), newest_share(0.5, 2)
    (1.0, 0.6666666666666666)
    """
    return (1 - decay) / (1 - decay**updates)
