"""docs/evaluation.md has one row per built-in metric, with its range and direction."""

from __future__ import annotations

import re
from pathlib import Path

from codex_ml.evaluate.metrics.registry import load_metrics

PAGE = (Path(__file__).parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Metrics\n")[1].split("\n## ")[0]


def test_the_page_lists_every_metric_with_its_range_and_direction():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\S+) to (\S+) \| (higher|lower) \|", SECTION, re.MULTILINE)
    written = {name: ((float(low), float(high)), better == "higher") for name, low, high, better in rows}
    assert len(rows) == len(written)
    assert written == {metric.name: (metric.bounds, metric.higher_is_better) for metric in load_metrics().chosen}
