"""The folder of a run's checkpoints. Its name is a fingerprint of everything that decides the result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from codex_ml.core.errors import CheckFailed
from codex_ml.core.line_file import LineFile
from codex_ml.core.lock import ProcessLock
from codex_ml.core.ranks import rank, world_size
from codex_ml.core.record import deciding
from codex_ml.core.strict_json import dump_json, ndjson_line
from codex_ml.modeling.hardware import Hardware
from codex_ml.train.checkpoint import newest_step
from codex_ml.train.stop_signals import waiting

RUNS = "runs.ndjson"  # in the folder of a run's checkpoints


def fingerprint(record: dict[str, Any], hardware: Hardware) -> str:
    """Return 16 hex digits of a hash of the parameters, inputs, code, package versions and hardware of a run.

    A comment in the code changes none of them, so an interrupted training goes on after such an edit.
    """
    recipe = dump_json({"record": deciding(record), "hardware": vars(hardware)})
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def _agreed(name: str, record: dict[str, Any], hardware: Hardware) -> str:
    """Return the name that the first process chose. Processes may differ in machine and threads, not in data or code.

    Raises:
        CheckFailed: when this process has different inputs or different versions of packages.
    """
    if not _several():
        return name
    from accelerate import PartialState

    own = {**deciding(record)["deps"], **record["environment"]["packages"]}
    with waiting():
        PartialState(cpu=hardware.device == "cpu")
    agreed, first = _of_the_first([name, own])
    if differ := sorted(key for key in own.keys() | first.keys() if own.get(key) != first.get(key)):
        raise CheckFailed(
            f"process {rank()} differs from the first process in {', '.join(differ[:3])}; give all processes the same "
            "checkout, data and packages"
        )
    return str(agreed)


def _several() -> bool:
    return world_size() > 1


def _of_the_first(values: list[Any]) -> list[Any]:
    """Return the values of the first process. Collective: every process must call it."""
    if not _several():
        return values
    from accelerate.utils import broadcast_object_list

    with waiting():
        return list(broadcast_object_list(values))


@contextmanager
def run_folder(parent: Path, record: dict[str, Any], hardware: Hardware) -> Iterator[Path]:
    """Yield the folder of this recipe's checkpoints, for one run at a time.

    A second run of the same recipe waits here. It then continues from the last checkpoint of the first run, which may
    be the final one. When the block ends without an error, the folder is removed, unless another run waits for it.

    In a run of several processes, the first process names the folder, also for other machines, and holds the lock. The
    others wait with it, in short collective calls: one long call would exceed the timeout of gloo or NCCL.

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


def note_run(folder: Path, tags: Mapping[str, str]) -> None:
    """Add a line about the run that begins to the folder of its checkpoints: a checkpoint may be of several runs.

    Args:
        tags: run id, experiment, seed and commit; see `codex_ml.core.side_note.run_tags`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = LineFile(folder / RUNS, limit=1_000_000, kept=1)
    file.append(ndjson_line(dict(tags)))
    file.close()
