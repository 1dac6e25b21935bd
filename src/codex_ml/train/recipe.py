"""What a run is trained on and how, and where it writes: built by the stage, read by the loop.

Used by: stages/train.py, loop, run, resume, identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codex_ml.core.config import Runtime
from codex_ml.modeling.hardware import Hardware
from codex_ml.modeling.rows import Rows
from codex_ml.train.config import Train


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what becomes of a model.

    Attributes:
        rows, val_rows: the packed rows of train and of val.
        hardware: what every `auto` of `train` and `runtime` was resolved to.
        seed: of the order of the rows, and of dropout.
        tokenizer: SHA-256 of tokenizer.json; another one would give the ids another meaning.
    """

    train: Train
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
