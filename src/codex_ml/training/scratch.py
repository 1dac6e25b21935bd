"""The folder of a run's checkpoints, named by everything that decides its result."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckFailed
from codex_ml.io import dump_json
from codex_ml.stage import rank
from codex_ml.training.device import Hardware


def fingerprint(record: dict[str, Any], hardware: Hardware) -> str:
    """16 hexadecimal digits over the parameters, inputs, code, package versions and hardware of a run."""
    recipe = dump_json({"record": record, "hardware": vars(hardware)})
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _agreed(name: str, hardware: Hardware) -> str:
    """What the first process says."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return name
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=hardware.device == "cpu")
    return str(broadcast_object_list([name])[0])


@contextmanager
def run_folder(parent: Path, record: dict[str, Any], hardware: Hardware) -> Iterator[Path]:
    """The run's own folder, locked: two runs of the same recipe do not write over each other.

    Of several processes of one run the first names the folder, also on other machines, and holds the lock.

    Raises:
        CheckFailed: when another process trains the same recipe.
    """
    folder = parent / _agreed(fingerprint(record, hardware), hardware)
    if rank():
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = parent / f"{folder.name}.lock"
    with lock.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckFailed(f"another process trains the same recipe in {folder}; wait for it") from None
        yield folder  # the lock file stays: who waits for a deleted one would not see who takes a new one
