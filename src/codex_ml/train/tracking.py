"""Write the curves, the metrics and the log of timings of a run.

`reports/train/` gets what is the same in equal runs: curves over `global_step` and the last numbers (DVCLive, TSV and
JSON). `logs/train/` gets what differs between equal runs: times, tokens per second, memory, and the optional trackers.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from codex_ml.core.errors import naming
from codex_ml.train import random_state
from codex_ml.train.timings import Timings

log = logging.getLogger("codex_ml")

# The curves. All other values of a point go only to the log of timings.
CURVES = ("train/loss", "train/grad_norm", "train/lr", "train/embedding_lr", "val/loss", "val/bits_per_byte")
BATCH = 1000  # points of the history in memory at once when a run resumes


class Sink(ABC):
    """A tracker: it receives the points of the curves."""

    name = ""

    @abstractmethod
    def log(self, points: Sequence[dict[str, Any]]) -> None:
        """Record points {"step": global_step, curve: value, ...}, sorted by step."""

    def observe(self, values: dict[str, Any]) -> None:  # noqa: B027 - most have nothing to do here
        """Receive timings and system metrics; only a sink that shows the current state uses them."""

    @abstractmethod
    def close(self, *, complete: bool) -> None:
        """Close the run; `complete` says whether it reached its last step."""


class Points:
    """Ignores the points of the curves; for a process that writes nothing."""

    def log(self, point: dict[str, Any]) -> None:
        """Add a point {"step": global_step, curve: value, ...}."""

    def event(self, **values: Any) -> None:
        """Add times and speeds, which are not part of the result."""


class Tracker(Points):
    """Writes the points of the curves as they come; first it writes the points of `history` again.

    A tracker of `extra` that fails gets no more points; a warning and a line in the log of timings say so. The random
    numbers that it draws while it gets points or closes do not change those of the training.
    """

    def __init__(
        self, folder: Path, events: Timings, history: Iterable[dict[str, Any]], *, extra: Sequence[Sink] = ()
    ) -> None:
        from dvclive import Live

        class OfflineLive(Live):
            """DVCLive's files without its DVC experiments, which need a Git commit."""

            def _init_dvc(self) -> None:
                pass

            def make_summary(self) -> None:
                """Write metrics.json without the last learning rates and gradient norm, which are not results."""
                whole = self.summary
                self.summary = {name: _compared(value) for name, value in whole.items()}
                super().make_summary()
                self.summary = whole

        self._live = OfflineLive(str(folder), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False)
        self._events, self._extra = events, tuple(extra)
        points = iter(history)
        while batch := list(islice(points, BATCH)):
            self._add(batch)

    def log(self, point: dict[str, Any]) -> None:
        """See `Points.log`."""
        self._add([point])

    def _add(self, points: list[dict[str, Any]]) -> None:
        curves = [{name: point[name] for name in ("step", *CURVES) if name in point} for point in points]
        with naming(self._live.dir):
            for point in curves:
                self._live.step = point["step"]
                for name, value in curves_of(point):
                    self._live.log_metric(name, value)
            self._live.make_summary()
        self._tell_undisturbed(lambda sink: sink.log(curves))

    def event(self, **values: Any) -> None:
        """Append a line to the log of timings."""
        self._events.append(values)
        self.observe(values)

    def observe(self, values: dict[str, Any]) -> None:
        """Pass current numbers to the trackers; any thread may call this."""
        self._tell(lambda sink: sink.observe(values))

    def finish(self, summary: dict[str, Any], *, complete: bool = True) -> None:
        """Write metrics.json, the last point of each curve and `summary`, and end the trackers.

        Args:
            complete: whether the run reached its last step; MLflow and W&B show it.
        """
        try:
            with naming(self._live.dir):
                self._live.summary.update(summary)
                self._live.make_summary()
                self._live.end()
        finally:
            self._tell_undisturbed(lambda sink: sink.close(complete=complete))
            self._events.close()

    def _tell_undisturbed(self, act: Callable[[Sink], None]) -> None:
        """In the thread of the training only: `observe`, which others call, would set its generators back."""
        if self._extra:
            with random_state.unchanged():
                self._tell(act)

    def _tell(self, act: Callable[[Sink], None]) -> None:
        for sink in self._extra:
            try:
                act(sink)
            except Exception as error:  # a tracker only copies the curves: whatever it raises must not end the run
                self._extra = tuple(other for other in self._extra if other is not sink)
                message = f"{type(error).__name__}: {error}"
                log.warning("train: %s failed and gets no more points, the run goes on (%s)", sink.name, message)
                self.event(tracker=sink.name, failed=message)


def _compared(value: Any) -> Any:
    return {name: number for name, number in value.items() if name == "loss"} if isinstance(value, dict) else value


def curves_of(point: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the names and values of a point, without its step."""
    return ((name, value) for name, value in point.items() if name != "step")
