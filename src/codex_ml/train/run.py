"""The state of a run between two steps. `prepare_run` creates it; `resume` saves and restores it."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.modeling.hardware import Hardware, settle_compiler
from codex_ml.modeling.rows import Rows
from codex_ml.train.config import Train
from codex_ml.train.history import History
from codex_ml.train.identity import Identity, identity_of
from codex_ml.train.model.adapters import is_adapted, rows_that_train, trainable_parameters
from codex_ml.train.optimizer import build_optimizer
from codex_ml.train.recipe import Recipe
from codex_ml.train.selection import BestWeights, Patience
from codex_ml.train.sharding import shard
from codex_ml.train.training_memory import largest_pass

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn, optim

log = logging.getLogger("codex_ml")


@dataclass
class Run:
    """Everything that decides the next step.

    Attributes:
        model, forward: the plain model, for validation and saving; and the one for training, which is compiled or
            wrapped where needed. They share their weights.
        micro_batch_size: rows per forward pass of one process; halved when memory runs out.
        step: optimizer steps done.
        skipped: updates skipped because the loss or the gradient was not finite.
        trained_tokens: targets in the steps that this process did, over all processes; not those before a resume.
        ema: averaged weights by name, on the model's device; None without averaging.
        averaged: updates in `ema`.
        processes: numbers of processes, in order; a resume with a different number appends it.
        identity: compared with the identity of a run that continues this one.
        continued: {"step", "changed", "best_measured_again"} for each run that this one continues.
        outdated: whether the kept weights must be validated again, because this run validates differently.
        sharded: whether each process holds a shard of the model; then gathering it is collective.
        history: the points of the curves so far; None on a process that does not write.
        environment: of the stage's record: Python, machine, threads, versions of the packages that decide bytes.
    """

    accelerator: Accelerator
    model: Any  # nn.Module, or an FSDPModule
    forward: nn.Module
    optimizer: optim.Optimizer
    recipe: Recipe
    scratch: Path
    micro_batch_size: int
    best: BestWeights
    patience: Patience
    identity: Identity
    ema: dict[str, Tensor] | None = None
    averaged: int = 0
    step: int = 0
    skipped: int = 0
    trained_tokens: int = 0
    stopped_early: bool = False
    processes: list[int] = field(default_factory=list)
    sharded: bool = False
    continued: list[dict[str, Any]] = field(default_factory=list)
    outdated: bool = False
    history: History | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Train:
        return self.recipe.train

    @property
    def rows(self) -> Rows:
        return self.recipe.rows

    @property
    def rows_a_step(self) -> int:
        return self.train.micro_batch_size * self.train.accumulation

    @property
    def finished(self) -> bool:
        return self.stopped_early or self.step >= self.train.max_steps

    @property
    def writes(self) -> bool:
        """Whether this process writes files; exactly one process does."""
        return bool(self.accelerator.is_main_process)


def prepare_run(model: nn.Module, recipe: Recipe, *, scratch: Path) -> Run:
    """Return a run at step 0.

    Args:
        model: what `make_trainable` returned; with runtime.sharding full, the run trains a sharded copy of it.
        scratch: folder of this run's checkpoints.

    Raises:
        UserError: when the processes cannot share the rows of a step evenly, or when sharding has one process only.
    """
    import torch

    train = recipe.train
    settle_compiler(recipe.hardware, seq_len=recipe.rows.seq_len)
    accelerator = _accelerator(recipe.hardware)
    identity = identity_of(model, recipe)
    sharded = recipe.runtime.sharding == "full"
    if sharded:
        model = _sharded_copy(model, accelerator, device=recipe.hardware.device)
    forward = accelerator.prepare_model(model, device_placement=not sharded, evaluation_mode=sharded)
    optimizer = build_optimizer(model, train, recipe.optimizer, precision=recipe.hardware.precision)
    log.info("train: %s", recipe.hardware)
    log.info("train: %s", recipe.optimizer)
    if train.ema and train.max_steps * (1 - train.ema) < 2:
        log.warning(
            "train: train.ema %g averages over about %.0f steps, and this run has %d; a lower one follows its weights "
            "more closely", train.ema, 1 / (1 - train.ema), train.max_steps,
        )  # fmt: skip
    if accelerator.process_index:  # the model was built with one seed on all processes; dropout must differ per process
        torch.manual_seed(recipe.seed + accelerator.process_index)
    return Run(
        accelerator=accelerator,
        model=accelerator.unwrap_model(forward, keep_torch_compile=False),
        forward=forward,
        optimizer=optimizer,
        recipe=recipe,
        scratch=scratch,
        micro_batch_size=rows_of_a_pass(train, accelerator.num_processes),
        best=BestWeights(scratch / "best", train.keep_best),
        patience=Patience(train.early_stopping),
        identity=identity,
        ema={name: p.detach().clone() for name, p in trainable_parameters(model).items()} if train.ema else None,
        sharded=sharded,
    )


def _accelerator(hardware: Hardware) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import TorchDynamoPlugin

    return Accelerator(
        cpu=hardware.device == "cpu",
        mixed_precision="no" if hardware.precision == "fp32" else hardware.precision,
        dynamo_plugin=TorchDynamoPlugin(backend="inductor", dynamic=False) if hardware.compile else None,
    )


def _sharded_copy(model: nn.Module, accelerator: Accelerator, *, device: str) -> nn.Module:
    """Shard a copy: sharding changes the classes of a model's modules, and the given model is saved later."""
    if is_adapted(model) and rows_that_train(model):
        raise UserError(
            "runtime.sharding full cannot be combined with tokenizer.add_pieces under model.lora, because peft trains "
            "rows of the embedding only where each process holds it whole; use none, or train all weights"
        )
    if accelerator.num_processes == 1:
        raise UserError(
            "runtime.sharding full needs several processes: set runtime.processes, or start the stage with torchrun"
        )
    model = copy.deepcopy(model).to(accelerator.device)
    shard(model, device=device, processes=accelerator.num_processes)
    return model


def rows_of_a_pass(train: Train, processes: int) -> int:
    """Return the rows per forward pass of one process; a step has the same rows with any number of processes.

    Raises:
        UserError: when the processes cannot share the rows of a step evenly.
    """
    own, rest = divmod(train.micro_batch_size * train.accumulation, processes)
    if rest:
        raise UserError(
            f"train: the {train.micro_batch_size} x {train.accumulation} rows of a step cannot be shared evenly among "
            f"{processes} processes; make micro_batch_size x accumulation a multiple of {processes}"
        )
    return largest_pass(own, train.micro_batch_size)
