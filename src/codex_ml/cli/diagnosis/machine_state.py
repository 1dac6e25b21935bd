"""The machine as `codex-ml doctor` sees it: interpreter, torch, GPU, compiler, cores, memory, disk, sandbox.

Used by: `codex-ml doctor`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.diagnosis.doctor_finding import DoctorFinding, bad, ok, warn
from codex_ml.core.cores import GROUPS, OWN_GROUPS, cores, machine_cores
from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.core.machine_memory import GPU_DEVICES, memory_limits
from codex_ml.core.tree import cache_folder

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that pyproject.toml allows
GB = 1e9
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 2 * GB, 5 * GB, 0.5 * GB
# A process of its own: a broken build of torch can end the process that imports it.
TORCH = """
import json, torch
gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
found = {"version": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "cuda": torch.version.cuda}
print(json.dumps({**found, "gpus": [torch.cuda.get_device_name(number) for number in gpus]}))
"""


def python() -> Iterator[DoctorFinding]:
    """The interpreter, and whether it is that of a virtual environment."""
    text = f"{platform.python_version()} in {sys.prefix}"
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield bad("python", f"{text}; 3.11, 3.12 or 3.13 is needed", "make setup PYTHON=python3.12")
    elif sys.prefix == sys.base_prefix:
        yield warn("python", f"{text}, which is not a virtual environment", "make setup")
    else:
        yield ok("python", text)


def torch() -> Iterator[DoctorFinding]:
    """The build of torch, and the instructions of the CPU that it uses."""
    done = subprocess.run([sys.executable, "-P", "-c", TORCH], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        why = one_line((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        yield bad("torch", f"cannot be imported: {why}", "make packages")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    build = f"built for CUDA {found['cuda']}" if found["cuda"] else "built for the CPU"
    text = f"{found['version']}, {build}, CPU kernels for {found['cpu']}"
    if found["cuda"] and not found["gpus"] and _gpu_devices():
        yield warn("torch", f"{text}; it sees no GPU although this machine has one", "nvidia-smi")
    elif not found["cuda"] and _gpu_devices():
        setup = 'make setup TORCH="torch==2.13.0 --index-url URL"'
        yield warn("torch", f"{text}, but this machine has a GPU", setup)
    else:
        yield ok("torch", f"{text}; GPUs: {', '.join(found['gpus']) or 'none'}")


def gpu() -> Iterator[DoctorFinding]:
    """GPUs and their driver, from NVML."""
    if not _gpu_devices():
        yield ok("gpu", "none on this machine; runtime.device auto uses the CPU")
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield warn(
            "gpu", f"{', '.join(_gpu_devices())} exists, but NVML does not answer: {one_line(error)}", "nvidia-smi"
        )
        return
    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    for number in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = f"{_text(pynvml.nvmlDeviceGetName(handle))}, driver {driver}"
        yield ok("gpu", f"{number}: {name}, {memory.free / GB:.1f} of {memory.total / GB:.1f} GB free")
    pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _gpu_devices() -> list[str]:
    return [device for device in GPU_DEVICES if Path(device).exists()]


def compiler() -> Iterator[DoctorFinding]:
    """The C++ compiler that torch.compile needs on the CPU."""
    path = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    if path is None:
        text = "no g++ and no clang++: torch.compile stays off on the CPU, so training takes longer"
        yield warn("compiler", text, "apt install g++")
        return
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    yield ok("compiler", f"{path}: {one_line((done.stdout.splitlines() or [''])[0])}")


def processor() -> Iterator[DoctorFinding]:
    """Cores of the machine, and those that this process may use."""
    machine, usable = machine_cores(), cores()
    text = f"{usable} of {machine}"
    if usable < machine:
        text += "; a control group or an affinity mask limits them"
    if (asked := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and 0 < int(asked) < usable:
        yield warn("cores", f"{text}, but OMP_NUM_THREADS is {asked}", "unset OMP_NUM_THREADS")
    else:
        yield ok("cores", text)


def memory() -> Iterator[DoctorFinding]:
    """Memory that is available, also under the limit of the control group."""
    import psutil

    machine = psutil.virtual_memory()
    limits = memory_limits(GROUPS, OWN_GROUPS)
    free = min([machine.available, *(limit - used for limit, used in limits)])
    text = f"{free / GB:.1f} GB available of {machine.total / GB:.1f}"
    if limits and (least := min(limit for limit, _ in limits)) < machine.total:
        text += f"; the control group allows {least / GB:.1f}"
    if free < LITTLE_MEMORY:
        yield warn("memory", f"{text}; less than {LITTLE_MEMORY / GB:.0f} GB", "ps aux --sort -rss | head")
    else:
        yield ok("memory", text)


def disk() -> Iterator[DoctorFinding]:
    """Free space where the pipeline writes: here, in DVC's cache, in the folder for temporary files."""
    seen = set()
    for what, folder in (
        ("here", "."),
        ("DVC's cache", cache_folder() or "."),
        ("temporary files", tempfile.gettempdir()),
    ):
        place = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(place)
        text = f"{what}: {usage.free / GB:.1f} GB free of {usage.total / GB:.1f}"
        if usage.free < NO_DISK:
            yield bad("disk", text, "dvc gc --workspace")
        elif usage.free < LITTLE_DISK:
            yield warn("disk", text, "dvc gc --workspace")
        else:
            yield ok("disk", text)


def sandbox() -> Iterator[DoctorFinding]:
    """The rung of the sandbox that withstands the probe, which really runs."""
    from codex_ml.sandbox.ladder import open_sandbox

    try:
        yield ok("sandbox", f"generated programs run in {open_sandbox().rung}, which withstood the probe")
    except (UserError, CheckFailed, OSError) as error:
        text = f"evaluate.benchmarks cannot run generated programs: {one_line(error)}"
        yield warn("sandbox", text, "apt install bubblewrap")
