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
from codex_ml.ranks import rank
from codex_ml.training.device import Hardware
from codex_ml.training.signals import waiting


def fingerprint(record: dict[str, Any], hardware: Hardware) -> str:
    """16 hexadecimal digits over the parameters, inputs, code, package versions and hardware of a run."""
    recipe = dump_json({"record": record, "hardware": vars(hardware)})
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _agreed(name: str, record: dict[str, Any], hardware: Hardware) -> str:
    """The name that the first process gives; machines and threads may differ, what is trained on and with may not.

    Raises:
        CheckFailed: when this process has read other bytes, or has other versions of packages.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return name
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    own = {**record["deps"], **record["environment"]["packages"]}
    with waiting():
        PartialState(cpu=hardware.device == "cpu")
        agreed, first = broadcast_object_list([name, own])
    if differ := sorted(key for key in own.keys() | first.keys() if own.get(key) != first.get(key)):
        raise CheckFailed(
            f"process {rank()} has another {', '.join(differ[:3])} than the first process; give all the same checkout, "
            "data and packages"
        )
    return str(agreed)


@contextmanager
def run_folder(parent: Path, record: dict[str, Any], hardware: Hardware) -> Iterator[Path]:
    """The run's own folder, locked: two runs of the same recipe do not write over each other.

    Of several processes of one run the first names the folder, also on other machines, and holds the lock.

    Raises:
        CheckFailed: when another run trains the same recipe, or when the processes of this one do not agree.
    """
    folder = parent / _agreed(fingerprint(record, hardware), record, hardware)
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
