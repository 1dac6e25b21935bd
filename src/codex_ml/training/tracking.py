"""Curves, metrics and the log of timings.

`reports/train/` gets what equal runs write equally: curves against `global_step` and the last numbers (DVCLive, TSV and
JSON). `logs/train/` gets what no two runs share: times, tokens a second, memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codex_ml.io import dump_json

# The curves; everything else of a point goes to the log of timings only.
CURVES = ("train/loss", "train/grad_norm", "train/lr", "val/loss", "val/bits_per_byte")


class Tracker:
    """Writes points of the curves as they come; made anew from the history when a run resumes."""

    def __init__(self, folder: Path, events: Path, history: Iterable[dict[str, Any]]) -> None:
        from dvclive import Live

        class OfflineLive(Live):
            """DVCLive's files without its DVC experiments, which want a Git commit to stand on."""

            def _init_dvc(self) -> None:
                pass

        self._live = OfflineLive(str(folder), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False)
        self._events = events
        self.history: list[dict[str, Any]] = []
        for point in history:
            self.log(point)

    def log(self, point: dict[str, Any]) -> None:
        """Add a point {"step": global_step, curve: value, ...}."""
        self.history.append(point)
        self._live.step = point["step"]
        for name in CURVES:
            if name in point:
                self._live.log_metric(name, point[name])
        self._live.make_summary()

    def event(self, **values: Any) -> None:
        """Append a line to the log of timings."""
        self._events.parent.mkdir(parents=True, exist_ok=True)
        with self._events.open("a", encoding="utf-8") as handle:
            handle.write(dump_json({"time": round(time.time(), 3), **values}, indent=None))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write metrics.json: the last point of each curve and `summary`."""
        self._live.summary.update(summary)
        self._live.make_summary()
        self._live.end()


def system_metrics() -> dict[str, float]:
    """CPU share, memory of this process and of the machine, free disk; GPU memory where there is one."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    values = {
        "cpu_percent": psutil.cpu_percent(),
        "rss_mb": psutil.Process().memory_info().rss / 2**20,
        "memory_used_percent": memory.percent,
        "disk_free_gb": psutil.disk_usage(".").free / 2**30,
    }
    if torch.cuda.is_available():
        values["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return {key: round(value, 2) for key, value in values.items()}
