"""The recipe, the folders and the result of a training run, which the stage and the loop share.

Used by: stages/train.py, loop, run, resume, identity, describe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.config import Runtime
from codex_ml.core.folders import logs_folder
from codex_ml.core.record import cpu_threads
from codex_ml.modeling.hardware import Hardware, choose_hardware
from codex_ml.modeling.rows import Rows
from codex_ml.train.config import Model, Train

WIDTH = 768  # hidden size at which the rates of params.yaml hold
EMBEDDING_RATIO = 8  # of train.embedding_lr to train.lr, where params.yaml names none


def hardware_for(model: Model, train: Train, runtime: Runtime) -> Hardware:
    """Resolve every `auto` of a training run.

    Raises:
        UserError: when params.yaml names something that this machine does not have.
    """
    return choose_hardware(
        runtime,
        threads=cpu_threads(train.threads),
        precision=train.precision,
        compile=train.compile,
        max_steps=train.max_steps,
        compiles=not model.is_encoder_decoder and runtime.sharding == "none",
    )


@dataclass(frozen=True)
class OptimizerPlan:
    """The optimizer and its peak rates.

    Attributes:
        name: "muon" or "adamw".
        lr: of matrices; of all weights where `embedding_lr` is None.
        embedding_lr: of embeddings, the output head, norms and biases; None: one rate for all.
    """

    name: str
    lr: float
    embedding_lr: float | None = None

    def __str__(self) -> str:
        if self.embedding_lr is None:
            return f"AdamW, peak rate {self.lr:.3g}"
        matrices = {"muon": "Muon", "adamw": "AdamW"}[self.name]
        return (
            f"{matrices} for hidden matrices, peak rate {self.lr:.3g}; AdamW for embeddings, norms and biases, peak "
            f"rate {self.embedding_lr:.3g}"
        )


def optimizer_plan(model: Model, train: Train) -> OptimizerPlan:
    """Resolve `train.optimizer` and the rates for a model."""
    if model.path:
        return OptimizerPlan("adamw", train.lr)
    scale = (model.hidden_size / WIDTH) ** -0.5
    name = "muon" if train.optimizer == "auto" else train.optimizer
    embedding_lr = EMBEDDING_RATIO * train.lr if train.embedding_lr is None else train.embedding_lr
    return OptimizerPlan(name, scale * train.lr, scale * embedding_lr)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run, except the model at its start.

    Attributes:
        rows, val_rows: the packed rows of train and of val.
        optimizer: the optimizer and its peak rates.
        hardware: how every `auto` of `train` and `runtime` was resolved.
        seed: seed of the row order and of dropout.
        tokenizer: SHA-256 of tokenizer.json, which decides what the ids mean.
    """

    train: Train
    optimizer: OptimizerPlan
    runtime: Runtime
    hardware: Hardware
    seed: int
    rows: Rows
    val_rows: Rows
    tokenizer: str


@dataclass(frozen=True)
class RunFolders:
    """Where a run writes. `curves` is an output of the pipeline; the others are not.

    Attributes:
        scratch: checkpoints of this run; the folder's name is the fingerprint of the run.
        curves: DVCLive's files.
        logs: timings and system metrics.
        trackers: one folder per tracker of `runtime.trackers`.
    """

    scratch: Path
    curves: Path
    logs: Path
    trackers: Path

    @classmethod
    def of_stage(cls, scratch: Path) -> RunFolders:
        """The folders of the stage `train`."""
        return cls(scratch, Path("reports/train"), logs_folder() / "train", logs_folder(shared=True) / "train")


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        best: {"step", "val/loss"} of the weights that are now in the model.
        details: what else training.json reports: early stopping, skipped updates, rows per pass, processes, continued
            runs.
    """

    best: dict[str, Any]
    details: dict[str, Any]
