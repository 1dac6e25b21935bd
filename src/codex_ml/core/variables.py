"""The environment variables that could change the bytes of a result, beside params.yaml. docs/environment.md lists all.

Stages set or remove some of them. The others are in the record of each stage, if they are set.

Used by: core.record, core.stage.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Set for every stage, whatever the shell has: no hub, no telemetry, no window, no module from the working folder.
FIXED = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DVC_STUDIO_OFFLINE": "1", "MPLBACKEND": "Agg",
    "PYTHONSAFEPATH": "1",
}  # fmt: skip
# Beginnings of the names of the variables that the record holds: they choose kernels, precision, libraries, a compiler,
# assertions, or how many threads OpenMP gives to torch, which splits a sum by their number (measured: the last digit).
RECORDED = (
    "ATEN_", "CUBLAS_", "CUDNN_", "CXX", "DNNL_", "DYLD_", "GLIBC_TUNABLES", "KMP_", "LD_AUDIT", "LD_LIBRARY_PATH",
    "LD_PRELOAD", "MKL_", "NPY_", "NVIDIA_TF32_OVERRIDE", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "ONEDNN_", "OPENBLAS_",
    "PYTHONINTMAXSTRDIGITS", "PYTHONOPTIMIZE", "PYTORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TORCH_", "TRITON_",
)  # fmt: skip
# Of these, the ones that we or torchrun set, and the ones that say where files lie or what is logged.
NOT_RECORDED = ("TORCHINDUCTOR_CACHE_DIR", "TORCH_HOME", "TORCH_LOGS", "TORCH_NCCL_", "TORCH_SHOW_")

OURS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # a stage sets it where the shell does not, so it makes no difference


def recorded_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that may decide bytes, in the order of their names.

    A value with a path is replaced by its SHA-256, because a record names no folder of a machine.
    """
    names = sorted(
        name
        for name, value in environment.items()
        if name.startswith(RECORDED) and not name.startswith(NOT_RECORDED) and OURS.get(name) != value
    )
    return {name: _without_paths(environment[name]) for name in names}


def _without_paths(value: str) -> str:
    return f"sha256:{hashlib.sha256(os.fsencode(value)).hexdigest()}" if "/" in value else value


def refuse_prompt() -> None:
    """End this process if PYTHONINSPECT is set: Python opens a prompt after a failure, and then exits with 0.

    DVC would take a failed stage for a good one.
    """
    if sys.flags.inspect:
        print(
            "error: PYTHONINSPECT is set, so Python would hide that a stage failed; unset it",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


def preloaded(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that LD_PRELOAD names by their paths."""
    return [
        path for word in environment.get("LD_PRELOAD", "").replace(":", " ").split() if (path := Path(word)).is_file()
    ]
