"""The state of a run between two steps, and how it is saved and restored."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.modeling.hardware import Hardware, settle_compiler
from codex_ml.modeling.rows import Rows
from codex_ml.train import checkpoint, random_state
from codex_ml.train.config import Train
from codex_ml.train.history import HISTORY, History
from codex_ml.train.identity import Identity, differences, identity_of, shown
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.selection import BestWeights, Patience
from codex_ml.train.sharding import placed_like, shard

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn, optim

log = logging.getLogger("codex_ml")


@dataclass
class Run:
    """Everything that decides the next step.

    Attributes:
        model: the plain one, for validation and saving; `forward` is compiled or wrapped, or the same.
        micro_batch_size: rows per forward pass of one process; halved when memory runs out.
        step: optimizer steps done.
        skipped: updates left out because a number was not finite.
        ema: averaged weights by name, on the model's device; None when none are averaged.
        processes: the numbers of processes, in order; a resume with another number adds one.
        identity: what a later run must share to continue from this one.
        continued: {"step", "changed", "best_measured_again"} for each run that this one continues.
        outdated: whether the kept weights were validated in another way than this run validates.
        sharded: whether each process holds a shard of the model; then reading it whole is collective.
        history: the points of the curves so far; None on a process that does not write.
    """

    accelerator: Accelerator
    model: Any  # nn.Module, or an FSDPModule
    forward: nn.Module
    optimizer: optim.Optimizer
    train: Train
    rows: Rows
    val_rows: Rows
    seed: int
    scratch: Path
    keep: int
    micro_batch_size: int
    best: BestWeights
    patience: Patience
    identity: Identity
    ema: dict[str, Tensor] | None = None
    step: int = 0
    skipped: int = 0
    stopped_early: bool = False
    processes: list[int] = field(default_factory=list)
    sharded: bool = False
    continued: list[dict[str, Any]] = field(default_factory=list)
    outdated: bool = False
    history: History | None = None

    @property
    def rows_a_step(self) -> int:
        return self.train.micro_batch_size * self.train.accumulation

    @property
    def finished(self) -> bool:
        return self.stopped_early or self.step >= self.train.max_steps

    @property
    def writes(self) -> bool:
        """Whether this process writes files; one of them does."""
        return bool(self.accelerator.is_main_process)


def prepare_run(
    model: nn.Module,
    rows: Rows,
    val_rows: Rows,
    *,
    train: Train,
    runtime: Runtime,
    hardware: Hardware,
    seed: int,
    scratch: Path,
    tokenizer: str,
) -> Run:
    """A run at step 0.

    Args:
        tokenizer: SHA-256 of tokenizer.json, part of the run's identity.

    Raises:
        UserError: when the rows of a step cannot be shared among the processes, or there is none to share with.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import TorchDynamoPlugin

    settle_compiler(hardware, seq_len=rows.seq_len)
    accelerator = Accelerator(
        cpu=hardware.device == "cpu",
        mixed_precision="no" if hardware.precision == "fp32" else hardware.precision,
        dynamo_plugin=TorchDynamoPlugin(backend="inductor", dynamic=False) if hardware.compile else None,
    )
    identity = identity_of(model, (rows, val_rows), seed=seed, train=train, hardware=hardware, tokenizer=tokenizer)
    sharded = runtime.sharding == "full"
    if sharded and accelerator.num_processes == 1:
        raise UserError(
            "runtime.sharding full needs several processes: set runtime.processes, or start the stage with torchrun"
        )
    if sharded:  # a copy is sharded: sharding changes the classes of its modules, and the given model is saved later
        model = copy.deepcopy(model).to(accelerator.device)
        shard(model, device=hardware.device, processes=accelerator.num_processes)
    forward = accelerator.prepare_model(model, device_placement=not sharded, evaluation_mode=sharded)
    trained = trainable_parameters(model).values()
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]  # norms and biases do not decay
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        eps=1e-8,
        fused=True,
    )
    if accelerator.process_index:  # after the model is built, equal on all processes: dropout must differ between them
        torch.manual_seed(seed + accelerator.process_index)
    return Run(
        accelerator=accelerator,
        model=accelerator.unwrap_model(forward, keep_torch_compile=False),
        forward=forward,
        optimizer=optimizer,
        train=train,
        rows=rows,
        val_rows=val_rows,
        seed=seed,
        scratch=scratch,
        keep=runtime.keep_checkpoints,
        micro_batch_size=_rows_of_a_pass(train, accelerator.num_processes),
        best=BestWeights(scratch / "best", train.keep_best),
        patience=Patience(train.early_stopping),
        identity=identity,
        ema={name: p.detach().clone() for name, p in trainable_parameters(model).items()} if train.ema else None,
        sharded=sharded,
    )


def _rows_of_a_pass(train: Train, processes: int) -> int:
    """Rows per forward pass of one process, so that a step has the same rows with any number of processes."""
    own, rest = divmod(train.micro_batch_size * train.accumulation, processes)
    if rest:
        raise UserError(
            f"train: the {train.micro_batch_size} x {train.accumulation} rows of a step cannot be shared evenly among "
            f"{processes} processes; choose micro_batch_size x accumulation as a multiple of it"
        )
    return _largest_pass(own, train.micro_batch_size)


def _largest_pass(own: int, limit: int) -> int:
    """The most rows, at most `limit`, that divide the `own` rows of a process into passes of one size."""
    return max(size for size in range(1, min(limit, own) + 1) if own % size == 0)


def resume(run: Run) -> None:
    """Go on from the newest checkpoint in the scratch folder, or from the run that `train.resume_from` names.

    Sets `run.history` to the points up to there. When `run.outdated` is True afterwards, the kept weights must be
    validated again first.

    Raises:
        UserError: when the run that `train.resume_from` names cannot be continued with these parameters and data.
    """
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


def _other_run(run: Run) -> checkpoint.Checkpoint:
    """The last checkpoint of the finished run that `train.resume_from` names.

    Raises:
        UserError: when it is missing, damaged or of another run, or when no step is left to do.
    """
    folder = Path(run.train.resume_from) / "last"
    if problem := checkpoint.damage(folder):
        raise UserError(
            f"train.resume_from: {folder} is no complete checkpoint ({problem}); name a copy of models/checkpoints"
        )
    found = checkpoint.load_checkpoint(folder)
    if "identity" not in found.state:
        raise UserError(
            f"train.resume_from: {folder} was written by an earlier version and does not say what it was trained on; "
            "train it again, or start from its weights: copy models/model to models/base and name it in model.path"
        )
    if changed := differences(found.state["identity"], run.identity, "fixed"):
        raise UserError(
            f"train.resume_from: {folder} is another run: {shown(changed)}. Set back what differs, or start a new run "
            "from its weights: copy models/model to models/base and name it in model.path"
        )
    done, planned = found.state["step"], found.state["max_steps"]
    if done >= run.train.max_steps:
        raise UserError(
            f"train.resume_from: {folder} has done {done} steps of {planned}, and train.max_steps is "
            f"{run.train.max_steps}; raise it"
        )
    return found


def _continue(run: Run, found: checkpoint.Checkpoint) -> Iterator[dict[str, Any]]:
    """Note what differs from the run that is continued; return its points that are still valid."""
    before = found.state["identity"]
    measured, settings = (differences(before, run.identity, group) for group in ("measured", "settings"))
    run.outdated, run.stopped_early = bool(measured), False
    run.continued.append({"step": run.step, "changed": {**measured, **settings}, "best_measured_again": run.outdated})
    where = f"step {run.step} in {run.train.resume_from}"
    log.info("train: resumed from the checkpoint of %s, now to %d steps", where, run.train.max_steps)
    if settings:
        log.info("train: from here on %s", shown(settings))
    if not measured:
        return found.points()
    log.warning(
        "train: %s: the kept weights are measured again, early stopping starts anew, and the curves leave out the "
        "validation losses up to here", shown(measured),
    )  # fmt: skip
    return (point for point in found.points() if "val/loss" not in point)


def _restore(run: Run, found: checkpoint.Checkpoint) -> None:
    """Restore everything that a checkpoint holds except its history."""
    state = found.state
    checkpoint.load_weights(run.model, found.weights)
    checkpoint.load_optimizer(run.model, run.optimizer, found.optimizer)
    if run.ema is not None:
        for name, average in run.ema.items():
            average.copy_(placed_like((found.ema or found.weights)[name], average))
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
    run.micro_batch_size = _largest_pass(run.rows_a_step // now, min(run.micro_batch_size, state["micro_batch_size"]))
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
        scaler = run.accelerator.scaler
        state = {
            "identity": run.identity,
            "continued": run.continued,
            "max_steps": run.train.max_steps,
            "best": run.best.entries,
            "patience": {
                "best": run.patience.best if math.isfinite(run.patience.best) else None,
                "waited": run.patience.waited,
            },
            "stopped_early": run.stopped_early,
            "skipped": run.skipped,
            "micro_batch_size": run.micro_batch_size,
            "processes": run.processes,
            "scaler": scaler.state_dict() if scaler is not None else {},
            "history": run.history.mark(),
            "random": states,
        }
        checkpoint.save_checkpoint(
            run.scratch, step=run.step, tensors=tensors, best=run.best.files(), state=state, keep=run.keep
        )
        run.best.drop_others()
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
