"""Checkpoints: safetensors and JSON only, complete or absent, verified before use.

    <folder>/step-00000120/model.safetensors      trained weights: all, or the adapters' only
                           optimizer.safetensors  state of the optimizer: momentum, moments, step counts
                           ema.safetensors        averaged weights, with train.ema only
                           best/00000100.safetensors  weights of the best validations so far
                           state.json             step, best, early stopping, scaler, random states, and the length and
                                                  SHA-256 of its part of history.ndjson
                           manifest.json          SHA-256 of the others, written last
             history.ndjson                       points of the curves, for all checkpoints; see `history`

The name of the folder is a fingerprint of everything that decides the result. So a run resumes only from its own work.

Used by: resume, scratch, validation, loop, stages/train.py.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.core.io import atomic_folder, read_json, write_json
from codex_ml.train.history import HISTORY, copy_history, damage_of, read_points
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.optimizer import state_names
from codex_ml.train.sharding import placed_like, whole

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

log = logging.getLogger("codex_ml")
NAME = re.compile(r"step-(\d{8,})")
MANIFEST, STATE, BEST = "manifest.json", "state.json", "best"
NEEDED = {"model.safetensors", "optimizer.safetensors", STATE}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        folder: the checkpoint's folder. The best weights stay there; they are not loaded.
        weights, optimizer, ema: tensors by name; `ema` is None when the run does not average.
        state: the content of state.json.
    """

    folder: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    state: dict[str, Any]

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the points of the curves up to this checkpoint."""
        history = self.state["history"]
        if isinstance(history, list):  # earlier versions kept the points in state.json
            return iter(history)
        return read_points(_history_of(self.folder), history["bytes"])


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    best: Sequence[Path],
    state: dict[str, Any],
    keep: int,
) -> None:
    """Write the checkpoint of `step`. Then delete later checkpoints, which are damaged, and all but the newest `keep`.

    Args:
        tensors: "model", "optimizer" and, with averaged weights, "ema": each a mapping of names to tensors.
        best: files of the best weights; they are copied into the checkpoint.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as new:
        for name, values in tensors.items():
            save_file(values, new / f"{name}.safetensors")
        for file in best:  # copied, not hard-linked: corruption of one checkpoint must not reach the previous one
            (new / BEST).mkdir(exist_ok=True)
            shutil.copyfile(file, new / BEST / file.name)
        write_json(new / STATE, {**state, "step": step})
        write_json(new / MANIFEST, {name: sha256_of(new / name) for name in _files(new)})
    found = _newest_first(folder)
    kept = [checkpoint for checkpoint in found if _step_of(checkpoint) <= step][:keep]
    for checkpoint in set(found) - set(kept):
        shutil.rmtree(checkpoint)


def _files(checkpoint: Path) -> list[str]:
    return sorted(file.relative_to(checkpoint).as_posix() for file in checkpoint.rglob("*") if file.is_file())


def load_newest(folder: Path) -> Checkpoint | None:
    """Load the newest checkpoint whose files all match its manifest; None where there is none.

    A damaged checkpoint is skipped with a warning.
    """
    for candidate in _newest_first(folder):
        if problem := damage(candidate):
            log.warning("train: checkpoint %s is damaged (%s); trying the one before it", candidate.name, problem)
            continue
        return load_checkpoint(candidate)
    return None


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None if it is complete and unchanged."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
    except UserError as error:
        return str(error)
    if not isinstance(manifest, dict) or not NEEDED.issubset(manifest):
        return f"{MANIFEST} does not list {', '.join(sorted(NEEDED))}"
    for name, sha256 in manifest.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if sha256_of(file) != sha256:
            return f"{name} does not match its SHA-256"
    history = read_json(checkpoint / STATE).get("history")
    return damage_of(_history_of(checkpoint), history) if isinstance(history, dict) else None


def load_checkpoint(checkpoint: Path) -> Checkpoint:
    """Read a checkpoint in which `damage` finds nothing."""
    ema = checkpoint / "ema.safetensors"
    return Checkpoint(
        folder=checkpoint,
        weights=read_tensors(checkpoint / "model.safetensors"),
        optimizer=read_tensors(checkpoint / "optimizer.safetensors"),
        ema=read_tensors(ema) if ema.exists() else None,
        state=read_json(checkpoint / STATE),
    )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read tensors into memory as copies: `load_file` returns views, which change when the file does."""
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def export_newest(folder: Path, target: Path) -> None:
    """Copy the last checkpoint of a finished run, with its history, into the new folder `target`."""
    newest = _newest_first(folder)[0]
    shutil.copytree(newest, target)
    copy_history(folder / HISTORY, target / HISTORY, read_json(newest / STATE)["history"]["bytes"])


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in a folder, damaged or not; 0 where there is none."""
    return next(map(_step_of, _newest_first(folder)), 0)


def _history_of(checkpoint: Path) -> Path:
    """The checkpoint's history file: inside an exported checkpoint, else in the folder of the run."""
    own = checkpoint / HISTORY
    return own if own.exists() else checkpoint.parent / HISTORY


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=_step_of, reverse=True)


def _step_of(checkpoint: Path) -> int:
    """The checkpoint's step, as a number. As text, "step-100000000" would sort before "step-99999999"."""
    return int(checkpoint.name.removeprefix("step-"))


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy the trained parameters to the CPU; return tensors by name. Collective when the model is sharded."""
    return {name: on_cpu(parameter) for name, parameter in trainable_parameters(model).items()}


def on_cpu(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, gathered if it is sharded. Collective when it is sharded."""
    return whole(tensor.detach()).to("cpu", copy=True).contiguous()


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into the model's own tensors. Collective when the model is sharded.

    Raises:
        UserError: when names or shapes differ.
    """
    import torch

    own = trainable_parameters(model)
    if own.keys() != weights.keys():
        raise UserError(f"the checkpoint belongs to another model: {sorted(own.keys() ^ weights.keys())[:3]} differ")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != weights[name].shape:
                raise UserError(
                    f"the checkpoint's {name} is {tuple(weights[name].shape)}, not {tuple(parameter.shape)}"
                )
            parameter.copy_(placed_like(weights[name], parameter))


def optimizer_tensors(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state on the CPU: "parameter name/key" to tensor. Collective when the model is sharded."""
    return {
        f"{name}/{key}": on_cpu(value)
        for name, parameter in trainable_parameters(model).items()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(model: nn.Module, optimizer: optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the optimizer's saved state. Collective when the model is sharded.

    Raises:
        UserError: when the state of a parameter is missing, or belongs to none: the optimizer never starts empty.
    """
    named = trainable_parameters(model)
    if tensors.keys() != state_names(model, optimizer):
        raise UserError("the checkpoint's optimizer state does not belong to this model and optimizer")
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = named[name]  # the fused AdamW keeps its step count on the parameter's device
        optimizer.state[parameter][entry] = (
            value.to(parameter.device) if entry == "step" else placed_like(value, parameter)
        )
