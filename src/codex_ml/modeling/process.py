"""Set what torch needs before it is loaded; for variables of the allocator, a stage re-executes itself once.

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

from codex_ml.core.loaded_code import allow_code

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
PROCESS = "process"  # a file of the private folder: the number of the process, whose kill leaves the folder
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
_private: list[Path] = []  # the folders that this process has made


def prepare_process(*, compiles: bool = False) -> None:
    """Re-execute this process once with the variables of the allocator; return in the re-executed process.

    Args:
        compiles: whether the process may use torch.compile; see `prepare_compiler`.
    """
    if sys.platform == "linux" and not os.environ.keys() >= ALLOCATOR.keys():
        sys.stdout.flush()
        command = [sys.executable, *sys.orig_argv[1:]]  # with the options of the interpreter
        os.execve(sys.executable, command, {**ALLOCATOR, **os.environ})  # noqa: S606 - the same program, no shell
    if compiles:
        prepare_compiler()


def prepare_compiler() -> Path:
    """Give torch.compile a private cache of compiled kernels, and a path to torch that a C++ compiler accepts.

    torch.compile does not quote paths in command lines, so a checkout under "my project" or a path with an apostrophe
    breaks it. A symbolic link in a private folder gives the same packages a plain path. torch must not be loaded yet.

    Returns:
        the folder, which is removed when this process ends.
    """
    private = Path(tempfile.mkdtemp(prefix="codex-ml-"))
    _private.append(private)
    atexit.register(remove_private)
    (private / PROCESS).write_text(str(os.getpid()), encoding="ascii")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private / "inductor")
    allow_code([private])
    spec = find_spec("torch")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else None
    if packages and not PLAIN.fullmatch(str(packages)):
        (private / "site").symlink_to(packages)
        sys.path.insert(0, str(private / "site"))
    return private


def remove_private() -> None:
    """Remove the folders that `prepare_compiler` made in this process."""
    while _private:
        shutil.rmtree(_private.pop(), ignore_errors=True)
