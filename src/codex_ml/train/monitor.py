"""Sample the machine's CPU, memory, disk and GPUs every few seconds while a run trains.

A separate thread takes the samples, because a broken driver or a lost network disk may never answer. The thread ends
with the block that started it. If it hangs, it does not keep the process alive: it is a daemon thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

from codex_ml.train.timings import Timings

log = logging.getLogger("codex_ml")
Sample = dict[str, Any]


@contextmanager
def monitor(
    lines: Timings,
    *,
    seconds: float = 5.0,
    observe: Callable[[Sample], None] | None = None,
    source: Callable[[], Generator[Sample, None, None]] | None = None,
    patience: float = 2.0,
) -> Iterator[None]:
    """Append a sample to `lines` every `seconds`, and one at the end.

    Args:
        observe: called with each sample, in the thread.
        source: generator of samples, by default `machine_samples`; its first sample is dropped.
        patience: seconds to wait at the end for the last sample.
    """
    stop = threading.Event()
    arguments = (lines, stop, seconds, observe, source or machine_samples)
    thread = threading.Thread(target=_watch, args=arguments, name="codex-ml-monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(patience)
        if thread.is_alive():
            log.warning("train: the monitor has waited for a sample for more than %g s; going on without it", patience)


def _watch(
    lines: Timings,
    stop: threading.Event,
    seconds: float,
    observe: Callable[[Sample], None] | None,
    source: Callable[[], Generator[Sample, None, None]],
) -> None:
    try:
        with closing(source()) as samples:
            next(samples)  # cpu_percent covers the time since the previous sample, so the first one is dropped
            last = False
            while not last:
                last = stop.wait(seconds)
                sample = next(samples)
                lines.append(sample)
                if observe:
                    observe(sample)
    except Exception as error:  # losing the monitor costs less than losing a run of days
        log.warning("train: the monitor ended, the run goes on (%s: %s)", type(error).__name__, error)


def machine_samples(*, nvml: bool = True) -> Generator[Sample, None, None]:
    """Yield samples without end.

    Args:
        nvml: whether to ask NVIDIA's library; without it no sample has `gpus`.

    A sample has `cpu_percent` (all cores, 0 to 100, since the previous sample), `rss_mb` (of this process, MiB),
    `memory_used_percent`, `disk_free_gb` (GiB, of the current folder) and `gpus`: a list of {index,
    utilization_percent, memory_used_mb, memory_total_mb, temperature_c, power_w}, null where the GPU does not report
    it, or `gpu_error` instead where NVML is installed but fails.
    """
    import psutil

    process = psutil.Process()
    with _nvml() if nvml else nullcontext(dict) as gpus:
        while True:
            memory = psutil.virtual_memory()
            yield {
                "cpu_percent": psutil.cpu_percent(),
                "rss_mb": round(process.memory_info().rss / 2**20, 2),
                "memory_used_percent": memory.percent,
                "disk_free_gb": round(psutil.disk_usage(".").free / 2**30, 2),
                **gpus(),
            }


@contextmanager
def _nvml() -> Iterator[Callable[[], Sample]]:
    """Yield a function that samples NVIDIA GPUs through NVML; without the library it reports no GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        yield lambda: {"gpus": []}
        return
    except pynvml.NVMLError as error:
        message = str(error)
        yield lambda: {"gpu_error": message}
        return
    try:
        yield _gpus
    finally:
        pynvml.nvmlShutdown()


def _gpus() -> Sample:
    import pynvml

    try:
        return {"gpus": [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]}
    except pynvml.NVMLError as error:
        return {"gpu_error": str(error)}


def _gpu(index: int) -> Sample:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    use = _reported(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _reported(pynvml.nvmlDeviceGetMemoryInfo, handle)
    power = _reported(pynvml.nvmlDeviceGetPowerUsage, handle)
    return {
        "index": index,
        "utilization_percent": use and use.gpu,
        "memory_used_mb": memory and round(memory.used / 2**20, 2),
        "memory_total_mb": memory and round(memory.total / 2**20, 2),
        "temperature_c": _reported(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        "power_w": None if power is None else power / 1000,
    }


def _reported(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the value that NVML reports; None if this GPU does not report it."""
    import pynvml

    try:
        return function(*arguments)
    except pynvml.NVMLError_NotSupported:
        return None
