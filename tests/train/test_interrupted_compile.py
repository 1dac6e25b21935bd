"""Ctrl-C while torch.compile builds kernels ends the C++ compiler too; that is an interruption, not an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

COMPILERS = ("g++", "clang++", "cc1plus", "c++")
TRAIN = """
import importlib.util, signal, sys
from dataclasses import replace
from pathlib import Path
spec = importlib.util.spec_from_file_location("training_recipe", sys.argv[2])
recipe = importlib.util.module_from_spec(spec)
sys.modules["training_recipe"] = recipe
spec.loader.exec_module(recipe)
from codex_ml.core.errors import one_line_errors
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
with one_line_errors():
    recipe.train(Path(sys.argv[1]), hardware=replace(recipe.HARDWARE, compile=True))
"""


def compiles(process: psutil.Process) -> bool:
    return any(child.name() in COMPILERS for child in process.children(recursive=True))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_kernels_are_built_is_one_line(tmp_path: Path, number: signal.Signals) -> None:
    said = tmp_path / "stderr"
    source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(tmp_path / "run"), str(Path(__file__).parent / "recipe.py")],
            env={**os.environ, **source}, stdout=stderr, stderr=stderr, start_new_session=True,
        )  # fmt: skip
    try:
        while not compiles(psutil.Process(process.pid)):
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
        os.killpg(process.pid, number)  # to all, as a terminal does
        code = process.wait(timeout=120)
    finally:
        process.kill()
    lines = said.read_text().splitlines()
    assert lines[-1:] == (["error: interrupted"] if number == signal.SIGINT else []), lines[:40]
    assert sum("error" in line.lower() or "Traceback" in line for line in lines) == len(lines), lines[:40]
    assert code == 128 + number
