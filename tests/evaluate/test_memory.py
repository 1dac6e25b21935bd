"""The memory of the tables does not grow with the number of documents beyond a few dozen bytes for each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = """
import random, resource, sys
from pathlib import Path
from types import SimpleNamespace
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.groups import groups_table, write_groups
from codex_ml.evaluate.item_tables import write_table
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.evaluate.summary import summarise

count, folder, metrics, rng = int(sys.argv[1]), Path(sys.argv[2]), load_metrics(), random.Random(1)
columns = dict.fromkeys(("bytes", *metrics.columns("score")))
texts = dict.fromkeys(("source", "language", "licence", "group"))
with write_table(folder, "documents", texts=tuple(texts), numbers=columns) as table:
    for number in range(count):
        numbers = dict.fromkeys(columns, rng.random() + 1)
        names = {"source": f"s{number % 24}", "language": "python", "licence": "MIT", "group": f"g{number // 2}"}
        table.add({"item": str(number), "unit": names["group"], **names}, numbers)
job = SimpleNamespace(metrics=metrics, settings=Evaluate(bootstrap=100), seed=1)
values = summarise(job, folder / "documents.parquet", "score")
write_groups(folder, groups_table(job, folder / "documents.parquet", values))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(count: int, folder: Path) -> int:
    """Peak memory in bytes of a process that writes and summarises a table of this many documents."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", MEASURED, str(count), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
def test_a_hundred_thousand_documents_need_at_most_50_mb_more_than_a_thousand(tmp_path: Path) -> None:
    few, many = peak(1_000, tmp_path / "few"), peak(100_000, tmp_path / "many")
    assert many - few < 50e6
