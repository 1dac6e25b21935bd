"""Values of metrics for lists of pairs, and packages that add a metric."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics

LENGTHS = """\
class Lengths:
    name = "lengths"
    inputs = "pair"
    columns = ("written", "items")
    higher_is_better = False
    signature = "characters"
    bounds = (0.0, float("inf"))

    def measure(self, item):
        return [len(item.output), 1]

    def aggregate(self, sums):
        return sums[..., 0] / sums[..., 1]
"""


@pytest.fixture(scope="session")
def value_of():
    """value_of(name, (output, reference), ..., prompt=, language=): the value of one metric over pairs."""

    def value_of(name, *pairs, prompt="", language="text"):
        metrics = load_metrics([name])
        rows = [metrics.measure(Pair(prompt, output, reference, language)) for output, reference in pairs]
        return metrics.value(metrics[name], np.array(rows).sum(0))

    return value_of


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with the metric `lengths`, as pip leaves it; `change` edits its code, old -> new."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = set()

    def install(*change, name="lengths", package="far-lengths", code=LENGTHS):
        module = package.replace("-", "_")
        modules.add(module)
        info = site / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[codex_ml.metrics]\n{name} = {module}:Lengths\n")
        for old, new in change:
            assert old in code
            code = code.replace(old, new)
        (site / f"{module}.py").write_text(code)
        importlib.invalidate_caches()

    install.code = LENGTHS
    yield install
    for module in modules & sys.modules.keys():
        del sys.modules[module]
