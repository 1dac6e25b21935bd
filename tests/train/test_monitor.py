"""The machine is monitored while a run trains, and the monitor ends with the run."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from codex_ml.core.strict_json import parse_json
from codex_ml.train.monitor import machine_samples, monitor
from codex_ml.train.timings import Timings


def lines(file):
    return [parse_json(line) for line in file.read_text().splitlines()]


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "codex-ml-monitor"]


def counting():
    number = 0
    while True:
        yield {"number": number}
        number += 1


def test_the_shortest_run_has_a_sample(tmp_path):
    with monitor(Timings(tmp_path / "logs/train/system.ndjson"), seconds=3600):
        pass
    (sample,) = lines(tmp_path / "logs/train/system.ndjson")
    assert sample["time"] > 0
    assert 0 <= sample["cpu_percent"] <= 100
    assert sample["rss_mb"] > 0
    assert 0 < sample["memory_used_percent"] <= 100
    assert sample["disk_free_gb"] > 0
    assert "gpus" in sample or "gpu_error" in sample


def test_samples_are_appended_and_shown(tmp_path):
    shown, three = [], threading.Event()

    def observe(sample):
        shown.append(sample)
        if len(shown) == 3:
            three.set()

    with monitor(Timings(tmp_path / "s.ndjson"), seconds=0.001, observe=observe, source=counting):
        assert three.wait(30)
    with monitor(Timings(tmp_path / "s.ndjson"), seconds=3600, source=counting):
        pass
    numbers = [sample["number"] for sample in lines(tmp_path / "s.ndjson")]
    assert numbers == [*range(1, len(shown) + 1), 1]
    assert [sample["number"] for sample in shown] == numbers[:-1]


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_no_thread_is_left_and_the_source_is_closed(tmp_path, ending):
    closed = []

    def source():
        try:
            yield from counting()
        finally:
            closed.append(threading.current_thread().name)

    try:
        with monitor(Timings(tmp_path / "s.ndjson"), source=source):
            assert len(watchers()) == 1
            if ending:
                raise ending
    except (RuntimeError, KeyboardInterrupt, SystemExit) as error:
        assert type(error) is ending
    assert watchers() == []
    assert closed == ["codex-ml-monitor"]


def test_a_hanging_sample_does_not_hold_the_run_and_is_told(tmp_path, caplog):
    release = threading.Event()

    def stuck():
        yield {}
        release.wait()
        yield {}

    with monitor(Timings(tmp_path / "s.ndjson"), source=stuck, patience=0.05):
        pass
    assert caplog.messages == ["train: the monitor has waited for a sample for more than 0.05 s; going on without it"]
    (thread,) = watchers()
    assert thread.daemon
    release.set()
    thread.join(30)
    assert watchers() == []


HANGING = """
import time
from pathlib import Path
from codex_ml.train.monitor import monitor
from codex_ml.train.timings import Timings
def stuck():
    time.sleep(3600)
    yield {}
with monitor(Timings(Path("s.ndjson")), source=stuck, patience=0.05):
    print("trained")
"""


def test_a_process_ends_over_a_hanging_sample(tmp_path, run_python):
    done = run_python("-c", HANGING, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "trained\n")


def test_a_failing_sample_ends_the_monitor_and_not_the_run(tmp_path, caplog):
    def failing():
        yield {}
        raise OSError("no such sensor")

    with monitor(Timings(tmp_path / "s.ndjson"), source=failing):
        pass
    assert caplog.messages == ["train: the monitor ended, the run goes on (OSError: no such sensor)"]
    assert watchers() == []


class Nvml(types.ModuleType):
    """NVIDIA's library as nvidia-ml-py shows it, with two GPUs, of which the second reports little."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, *, start=None, count=None):
        super().__init__("pynvml")
        self.start, self.count, self.open = start, count, 0

    def nvmlInit(self):
        if self.start:
            raise self.start
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        if self.count:
            raise self.count
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetMemoryInfo(self, handle):
        return types.SimpleNamespace(used=3 * 2**30, total=80 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle):
        if handle == 1:
            raise self.NVMLError_NotSupported
        return types.SimpleNamespace(gpu=0)

    def nvmlDeviceGetPowerUsage(self, handle):
        if handle == 1:
            raise self.NVMLError_NotSupported
        return 250_500

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 41 + handle


@pytest.fixture
def sample_with(monkeypatch):
    def sample(library):
        monkeypatch.setitem(sys.modules, "pynvml", library)
        samples = machine_samples()
        value = next(samples)
        samples.close()
        assert library.open == 0
        return {key: value[key] for key in value if key.startswith("gpu")}

    return sample


def test_without_nvml_the_driver_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it would fail
    samples = machine_samples(nvml=False)
    value = next(samples)
    samples.close()
    assert set(value) == {"cpu_percent", "rss_mb", "memory_used_percent", "disk_free_gb"}


def test_gpus_are_told_with_what_they_say(sample_with):
    memory = {"memory_used_mb": 3072.0, "memory_total_mb": 81920.0}
    assert sample_with(Nvml()) == {
        "gpus": [
            {"index": 0, "utilization_percent": 0, **memory, "temperature_c": 41, "power_w": 250.5},
            {"index": 1, "utilization_percent": None, **memory, "temperature_c": 42, "power_w": None},
        ]
    }


@pytest.mark.parametrize(
    ("library", "told"),
    [
        (Nvml(start=Nvml.NVMLError_LibraryNotFound()), {"gpus": []}),
        (Nvml(start=Nvml.NVMLError("Driver Not Loaded")), {"gpu_error": "Driver Not Loaded"}),
        (Nvml(count=Nvml.NVMLError("GPU is lost")), {"gpu_error": "GPU is lost"}),
    ],
    ids=["no library", "no driver", "lost"],
)
def test_no_gpu_and_a_sick_one_are_different(workspace, sample_with, library, told):
    assert sample_with(library) == told
