"""A compiled run gives equal bytes each time, also after an interruption, like a run that is not compiled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.train.checkpoint import load_newest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a compiler"),
]
STEPS = 4
SCRIPT = """
import importlib.util, json, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("training_recipe", sys.argv[1])
recipe = importlib.util.module_from_spec(spec)
sys.modules["training_recipe"] = recipe
spec.loader.exec_module(recipe)
order = json.loads(sys.argv[3])
hardware = recipe.Hardware("cpu", "fp32", compile=order["compile"], threads=1, capability="test")
recipe.make_deterministic(hardware, seed=3)
if order["stop"]:
    recipe._kill_between_steps(order["stop"])
recipe.train(Path(sys.argv[2]), model=recipe.tiny_model(), hardware=hardware, max_steps=order["steps"], checkpoint_every=1)
if order["compile"] and order["stop"] != order["steps"]:
    from torch._dynamo.utils import counters
    assert counters["stats"]["unique_graphs"] > 0
"""


def run(folder: Path, *, kernels: Path | None, stop: int = 0) -> int:
    """Train in a separate process, compiled if it has a folder for kernels; kill -9 after `stop` steps."""
    folder.mkdir(exist_ok=True)
    order = json.dumps({"compile": kernels is not None, "stop": stop, "steps": STEPS})
    own = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TORCHINDUCTOR_CACHE_DIR": str(kernels or folder)}
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("recipe.py")), str(folder), order]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
    assert stop or not done.returncode, done.stderr[-3000:]
    return done.returncode


def outcome(folder: Path) -> dict[str, bytes]:
    """The last checkpoint with its best weights, the history and the curves, byte by byte."""
    parts = (max((folder / "scratch").glob("step-*")), folder / "curves", folder / "scratch/history.ndjson")
    files = [file for part in parts for file in (part.rglob("*") if part.is_dir() else [part]) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_compiled_runs_are_equal_also_after_a_kill_and_agree_with_a_plain_one(tmp_path):
    """Rows of 8 tokens, less than a vector; the second run compiles everything again."""
    run(tmp_path / "whole", kernels=tmp_path / "kernels")
    whole = outcome(tmp_path / "whole")
    run(tmp_path / "again", kernels=tmp_path / "other-kernels")
    assert outcome(tmp_path / "again") == whole
    assert run(tmp_path / "killed", kernels=tmp_path / "kernels", stop=2) == -signal.SIGKILL
    run(tmp_path / "killed", kernels=tmp_path / "kernels")
    assert outcome(tmp_path / "killed") == whole

    run(tmp_path / "plain", kernels=None)
    plain, compiled = (load_newest(tmp_path / name / "scratch") for name in ("plain", "whole"))
    for ours, theirs in zip(compiled.points(), plain.points(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
