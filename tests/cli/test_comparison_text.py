"""The text of a comparison names an interval that is not the usual one."""

from __future__ import annotations

import pytest

from codex_ml.cli.comparison_text import HEAD, metric_cells
from codex_ml.inference.comparison_files import ComparedMetric


@pytest.mark.parametrize(("method", "end"), [("score", " (score)"), ("bootstrap", "0.2"), (None, "0.2")])
def test_an_interval_of_pass_rates_is_marked_as_the_score_interval(method, end):
    row = ComparedMetric(
        task="code/HumanEval",
        metric="pass_at_1",
        higher_is_better=True,
        verdict="no evidence",
        units=164,
        low=-0.1,
        high=0.2,
        method=method,
    )
    cells = metric_cells(row)
    assert len(cells) == len(HEAD)
    assert cells[4].startswith("-0.1")
    assert cells[4].rstrip("0").endswith(end)
