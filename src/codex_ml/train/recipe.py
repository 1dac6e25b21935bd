"""The recipe, the folders and the result of a training run, which the stage and the loop share.

Used by: stages/train.py, loop, run, resume, identity, describe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.config import Runtime
from codex_ml.core.record import cpu_threads
from codex_ml.modeling.hardware import Hardware, choose_hardware
from codex_ml.modeling.rows import Rows
from codex_ml.train.config import Model, Train
from codex_ml.train.optimizer import OptimizerPlan


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
