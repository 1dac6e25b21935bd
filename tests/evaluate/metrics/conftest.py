"""Values of metrics for lists of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics


@pytest.fixture(scope="session")
def value_of():
    """value_of(name, (output, reference), ..., prompt=, language=): the value of one metric over pairs."""

    def value_of(name, *pairs, prompt="", language="text"):
        metrics = load_metrics([name])
        rows = [metrics.measure(Pair(prompt, output, reference, language)) for output, reference in pairs]
        return metrics.value(metrics[name], np.array(rows).sum(0))

    return value_of
