"""The scripts below benchmarks/, which is not a package, and the tables that they wrote."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script by its name; it is forgotten after the test."""
    path, known = list(sys.path), set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def recorded_table() -> Callable[[str], list[dict[str, str]]]:
    """Read the table that a script wrote, by the name of the script."""

    def read(name: str) -> list[dict[str, str]]:
        with (BENCHMARKS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return read
