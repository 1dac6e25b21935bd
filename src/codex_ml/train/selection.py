"""Keep the weights of the best validations, and end a run that does not improve."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.io import atomic_file
from codex_ml.train.config import EarlyStopping

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Patience:
    """Early stopping: a validation is an improvement when loss < best - min_delta, so never when equal or NaN."""

    settings: EarlyStopping
    best: float = math.inf
    waited: int = 0

    def update(self, loss: float) -> bool:
        """Add a validation loss; return True when training should stop."""
        if loss < self.best - self.settings.min_delta:
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        return self.settings.patience is not None and self.waited >= max(1, self.settings.patience)


@dataclass
class BestWeights:
    """The weights of the `keep` lowest validation losses, in files. Of equal losses the earliest is the best.

    Attributes:
        entries: {"step", "val/loss"} of each, the best first.
    """

    folder: Path
    keep: int
    entries: list[dict[str, Any]] = field(default_factory=list)

    def offer(
        self, step: int, loss: float, weights: Callable[[], dict[str, Tensor]] | None, *, writes: bool = True
    ) -> None:
        """Keep the weights of this validation when it is one of the best.

        Args:
            weights: returns the weights; None on a process that neither writes nor holds a shard.
            writes: whether this process is the one that writes.
        """
        entries = sorted([*self.entries, {"step": step, "val/loss": loss}], key=lambda e: (e["val/loss"], e["step"]))
        self.entries = entries[: self.keep]
        if weights is not None and any(entry["step"] == step for entry in self.entries):
            tensors = weights()
            if writes:
                from safetensors.torch import save_file

                with atomic_file(self.file(step)) as handle:
                    save_file(tensors, handle.name)

    def restore(self, entries: list[dict[str, Any]], files: Path) -> None:
        """Restore the entries of a checkpoint; their files are copied from the folder `files`."""
        self.entries = list(entries)
        for file in self.files():
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files / file.name, file)
        self.drop_others()

    def file(self, step: int) -> Path:
        """Return the path of the weights of a step."""
        return self.folder / f"{step:08d}.safetensors"

    def files(self) -> list[Path]:
        """Return the files of the entries, the best first."""
        return [self.file(entry["step"]) for entry in self.entries]

    def drop_others(self) -> None:
        """Delete weights that are not among the best."""
        for file in set(self.folder.glob("*.safetensors")) - set(self.files()):
            file.unlink()
