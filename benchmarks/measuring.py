"""Make a workspace with the code of a checkout, and measure the cost of a process and its children.

Linux only: it waits through a pidfd and reads /proc through psutil.

Used by: data.py, load.py, train.py, recipe.py.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.2
RESULTS = ("raw", "corpus", "splits", "packed")  # folders of data/ that users and stages fill


@dataclass(frozen=True)
class Run:
    """Cost of a process and its children.

    Attributes:
        seconds: wall time.
        cpu: CPU seconds of all processes, user and system.
        parent: CPU seconds of the first process alone.
        peak: MiB, the largest sum over all processes, sampled five times per second (USS: private memory only).
        written: MB passed to write(), from the same samples.
        error: why there is no result; "" if there is one.
        main: CPU seconds of the main thread of the first process alone.
    """

    seconds: float
    cpu: float = 0.0
    parent: float = 0.0
    peak: float = 0.0
    written: float = 0.0
    error: str = ""
    main: float = 0.0


def cpu_name() -> str:
    """Return the name of the processor, as Linux reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "CPU")


def measure(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> Run:
    """Run a command in `folder` and return its cost; end the benchmark if it fails."""
    run = attempt(command, folder, environment)
    if run.error:
        sys.exit(f"{command}: {run.error}")
    return run


def attempt(
    command: list[str], folder: Path, environment: dict[str, str] | None = None, *, limit: float | None = None
) -> Run:
    """Run a command in `folder` and return its cost; kill it and its children after `limit` CPU seconds."""
    with TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # a group of its own, for killpg
        )
        try:
            peak, written, killed = _watch(process, limit)
            seconds = time.monotonic() - start
            times = psutil.Process(process.pid).cpu_times()  # the process is not reaped yet, even if it has ended
            main = _main_thread(process.pid)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # all of them, or what an error left
            process.wait()
        parent = times.user + times.system
        cpu = parent + times.children_user + times.children_system
        error = _error(process.returncode, errors)
    if killed:  # the CPU time of living children is not known
        return Run(seconds, peak=peak, written=written, error=f"not done in {limit:g} CPU s")
    return Run(seconds, cpu, parent, peak, written, error, main)


def _watch(process: subprocess.Popen[bytes], limit: float | None) -> tuple[float, float, bool]:
    """Return MiB of memory, MB written, and whether the process reached the limit before it ended."""
    peak, written, killed = 0.0, Counter[int](), False
    ended = os.pidfd_open(process.pid)
    try:
        while not killed and not select.select([ended], [], [], SAMPLE_SECONDS)[0]:
            memory, cpu = 0, 0.0
            with suppress(psutil.Error):
                first = psutil.Process(process.pid)
                for one in [first, *first.children(recursive=True)]:
                    with suppress(psutil.Error):
                        memory += one.memory_full_info().uss
                        written[one.pid] = one.io_counters().write_chars
                        times = one.cpu_times()
                        cpu += times.user + times.system + times.children_user + times.children_system
            peak = max(peak, memory / 2**20)
            killed = limit is not None and cpu >= limit
    finally:
        os.close(ended)
    return peak, sum(written.values()) / 1e6, killed


def _main_thread(pid: int) -> float:
    """Return the CPU seconds of the main thread of an ended, not yet reaped process (proc(5): utime, stime)."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _error(status: int, errors: IO[bytes]) -> str:
    if not status:
        return ""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f"exit status {status}: {' '.join(lines[-1:])}"


def workspace(root: Path, params: str, *, checkout: Path = ROOT) -> Path:
    """Make a folder with the code, policy and empty ledger of a checkout, and these parameters; without data."""
    generated = shutil.ignore_patterns("__pycache__")
    for name in ("src", "stages", "models/base"):
        shutil.copytree(checkout / name, root / name, ignore=generated)
    shutil.copytree(checkout / "data", root / "data", ignore=shutil.ignore_patterns(*RESULTS))
    for name in ("dvc.yaml", "pyproject.toml", "models/presets.yaml"):
        shutil.copyfile(checkout / name, root / name)
    (root / "params.yaml").write_text(params, encoding="utf-8")
    return root
