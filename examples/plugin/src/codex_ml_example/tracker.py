"""A tracker: one line of JSON per point of the curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Lines:
    """Writes the points of a run to RUN_NAME.ndjson.

    A run that continues opens its tracker again and gives it all points from the first step, so the file starts anew.

    Args:
        folder: an existing folder for this tracker.
        run_name: name of the run, the same when it continues.
        config: parameters of the stage, by section.
    """

    def __init__(self, folder: Path, run_name: str, config: dict[str, Any]) -> None:
        self._file = (folder / f"{run_name}.ndjson").open("w", encoding="utf-8")
        self._write({"config": config})

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value, sort_keys=True) + "\n")
        self._file.flush()

    def tag(self, tags: dict[str, str]) -> None:
        """Record the texts that runs are found by: run id, experiment, seed, commit. This method may be left out."""
        self._write({"tags": tags})

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        """Record points such as {"step": 10, "train/loss": 2.5}."""
        for point in points:
            self._write(point)

    def close(self, *, complete: bool) -> None:
        """End the run; `complete` says whether it reached its last step."""
        self._write({"complete": complete})
        self._file.close()

    @staticmethod
    def add_results(folder: Path, run_name: str, results: dict[str, Any]) -> None:
        """Write what evaluation or audit measured after the run; `results["kind"]` says which. May be left out."""
        text = json.dumps(results, sort_keys=True) + "\n"
        (folder / f"{run_name}.{results['kind']}.json").write_text(text, encoding="utf-8")
