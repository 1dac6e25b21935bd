"""A tracker of another package (entry point `codex_ml.trackers`), named in `runtime.trackers`.

The package gives a callable with the arguments (folder, run name, parameters) of a built-in tracker. It returns an
object with `log(points)` and `close(complete=...)`; docs/extend.md describes them.
Used by: train.trackers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.core.plugins import UnusablePlugin, load
from codex_ml.train.tracking import Sink


class PluginTracker(Sink):
    """Gives the points of the curves to a tracker of a package, and no times or system metrics."""

    def __init__(
        self, name: str, folder: Path, run_name: str, config: dict[str, Any], *, tags: Mapping[str, str]
    ) -> None:
        self.name = name
        make = load("trackers", name)
        if not callable(make):
            raise UnusablePlugin("trackers", name, f"is not callable, but {type(make).__name__}")
        folder.mkdir(parents=True, exist_ok=True)
        self._tracker = make(folder, run_name, config)
        if lacks := [method for method in ("log", "close") if not callable(getattr(self._tracker, method, None))]:
            raise UnusablePlugin("trackers", name, f"gives an object without the method {lacks[0]}")
        if callable(tag := getattr(self._tracker, "tag", None)):
            tag(dict(tags))

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        self._tracker.log([dict(point) for point in points])

    def close(self, *, complete: bool) -> None:
        self._tracker.close(complete=complete)
