"""kill -9 while worker processes are at work: nothing half stays, and the next run ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.io import hash_path

pytestmark = pytest.mark.costly
FAULTS = Path(__file__).parents[1] / "pipeline/faults"
OUTPUTS = {"ingest": "data/corpus", "split": "data/splits"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository, project):
    """What the two stages need, and 24 MB of text: six tasks of ingest, three row groups."""
    root = tmp_path_factory.mktemp("killed")
    shutil.copytree(project, root, dirs_exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(repository / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(repository / "dvc.yaml", root / "dvc.yaml")
    (root / "data/raw").mkdir()
    dice = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    with (root / "data/raw/text.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(1500):
            text = " ".join(dice.choices(words, k=2000))
            lines.write(json.dumps({"id": number, "text": text, "licence": "MIT"}) + "\n")
    return root


def run(root, stage, *, workers, **environment):
    quality = {"max_line_length": None, "max_mean_line_length": None}
    params = {
        "ingest": {"sources": [{"kind": "jsonl", "path": "data/raw/text.jsonl"}]},
        "split": {"licences": ["MIT"], "quality": quality},
        "runtime": {"workers": workers, "progress": "off"},
    }
    (root / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    return subprocess.run(
        [sys.executable, f"stages/{stage}.py"], cwd=root, env={**os.environ, **environment}, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("stage", "task"), [("ingest", 6), ("split", 3)])
def test_killed_with_workers_leaves_nothing_half_and_ends_with_the_same_bytes(checkout, stage, task):
    out = checkout / OUTPUTS[stage]
    if stage == "split":
        assert run(checkout, "ingest", workers=1).returncode == 0
    undisturbed = run(checkout, stage, workers=1)
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = hash_path(out)
    shutil.rmtree(out)

    fault = f"kill tempfile.mkstemp {task}"  # when this task is handed over; workers have got fewer by then
    killed = run(checkout, stage, workers=2, PYTHONPATH=str(FAULTS), CODEX_TEST_FAULT=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    assert list(out.parent.glob(f".{out.name}.tmp-*"))  # the fault came while it was at work

    again = run(checkout, stage, workers=2)
    assert again.returncode == 0, again.stderr
    assert hash_path(out) == expected
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
