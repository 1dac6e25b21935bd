"""Set environment variables that torch needs before it is loaded; for that, a stage re-executes itself once.

Used by: train, evaluate, safety_audit.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

# By default glibc returns freed memory to the kernel and faults it in again at each step. Keeping it makes a step a
# third faster on a CPU (measured on 2 cores, together with eager attention: 68 % instead of 49 % of the bf16 matmul
# peak).
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    # Arrow's own allocator keeps 60 MiB of what it read of 100,000 short documents, this one none of it
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
MARK, PRIVATE = "CODEX_ML_PREPARED", "CODEX_ML_PRIVATE"
PROCESS = "process"  # a file of the private folder: the number of the process, whose kill leaves the folder
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def prepare_process(*, compiles: bool = False) -> None:
    """Re-execute this process once with the variables; return in the re-executed process.

    Args:
        compiles: whether the process may use torch.compile; see `compiler_environment`.
    """
    if os.environ.get(MARK) == str(os.getpid()):
        if private := os.environ.get(PRIVATE):
            atexit.register(shutil.rmtree, private, ignore_errors=True)
        return
    environment = {**os.environ, MARK: str(os.getpid())}
    if sys.platform == "linux":
        environment = {**ALLOCATOR, **environment}
    if compiles:
        environment |= compiler_environment()
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606 - the same program, no shell


def compiler_environment() -> dict[str, str]:
    """Return variables for a private cache of compiled kernels, and for a path to torch that a C++ compiler accepts.

    torch.compile does not quote paths in command lines, so a checkout under "my project" or a path with an apostrophe
    breaks it. A symbolic link in a private folder gives the same packages a plain path.
    """
    private = Path(tempfile.mkdtemp(prefix="codex-ml-"))
    (private / PROCESS).write_text(str(os.getpid()), encoding="ascii")
    settings = {"TORCHINDUCTOR_CACHE_DIR": str(private / "inductor"), PRIVATE: str(private)}
    spec = find_spec("torch")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else None
    if packages and not PLAIN.fullmatch(str(packages)):
        (private / "site").symlink_to(packages)
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, [str(private / "site"), os.environ.get("PYTHONPATH")]))
    return settings
