"""The folder of a run's checkpoints, named by everything that decides its result."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from codex_ml.core.errors import CheckFailed
from codex_ml.core.lock import ProcessLock
from codex_ml.core.ranks import rank
from codex_ml.core.strict_json import dump_json
from codex_ml.modeling.hardware import Hardware
from codex_ml.train.checkpoint import newest_step
from codex_ml.train.stop_signals import waiting


def fingerprint(record: dict[str, Any], hardware: Hardware) -> str:
    """16 hexadecimal digits over the parameters, inputs, code, package versions and hardware of a run."""
    recipe = dump_json({"record": record, "hardware": vars(hardware)})
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _agreed(name: str, record: dict[str, Any], hardware: Hardware) -> str:
    """The name that the first process gives; machines and threads may differ, what is trained on and with may not.

    Raises:
        CheckFailed: when this process has read other bytes, or has other versions of packages.
    """
    if not _several():
        return name
    from accelerate import PartialState

    own = {**record["deps"], **record["environment"]["packages"]}
    with waiting():
        PartialState(cpu=hardware.device == "cpu")
    agreed, first = _of_the_first([name, own])
    if differ := sorted(key for key in own.keys() | first.keys() if own.get(key) != first.get(key)):
        raise CheckFailed(
            f"process {rank()} has another {', '.join(differ[:3])} than the first process; give all the same checkout, "
            "data and packages"
        )
    return str(agreed)


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _of_the_first(values: list[Any]) -> list[Any]:
    """The values of the first process. Collective: every process must call it."""
    if not _several():
        return values
    from accelerate.utils import broadcast_object_list

    with waiting():
        return list(broadcast_object_list(values))


@contextmanager
def run_folder(parent: Path, record: dict[str, Any], hardware: Hardware) -> Iterator[Path]:
    """The folder of this recipe's checkpoints, for one run at a time.

    A second run of the same recipe waits here. It then finds the last checkpoint of the first one, which may be the
    final one, and goes on from there. When the block ends without an error, the folder is removed, unless another run
    waits for it.

    Of several processes of one run the first names the folder, also on other machines, and holds the lock. The others
    wait with it, in short collective calls: one long call would exceed the timeout of gloo or NCCL.

    Raises:
        CheckFailed: when the processes of this run do not agree.
    """
    folder = parent / _agreed(fingerprint(record, hardware), record, hardware)
    file = parent / f"{folder.name}.lock"
    lock = None if rank() else ProcessLock(file, "train", "trains the same recipe", state=lambda: _state(folder))
    with closing(lock) if lock else nullcontext():
        while not _of_the_first([lock is not None and lock.try_acquire()])[0]:
            if lock:
                lock.wait()
        if lock:
            folder.mkdir(parents=True, exist_ok=True)
        yield folder
        if lock:
            with lock.nobody_waits() as alone:
                if alone:
                    shutil.rmtree(folder)


def _state(folder: Path) -> str:
    step = newest_step(folder)
    return f"its last checkpoint is that of step {step}" if step else "it has no checkpoint yet"
