"""Ctrl-C while torch.compile builds kernels ends the compiler too; that is an interruption, not an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from workspace import Finished

COMPILERS = ("g++", "clang++", "cc1plus", "c++")


def compiles(process: psutil.Process) -> bool:
    return any(child.name() in COMPILERS for child in process.children(recursive=True))


@pytest.mark.slow
def test_ctrl_c_while_kernels_are_built_is_one_line(finished: Finished, tmp_path: Path) -> None:
    workspace = finished.workspace.copy(tmp_path / "compiled")
    workspace.edit("params.yaml", "  threads: 1\n", '  threads: 1\n  compile: "on"\n')
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "stages/train.py"], cwd=workspace.root, env=workspace.environment, stdout=stderr,
            stderr=stderr, start_new_session=True,
        )  # fmt: skip
    try:
        while not compiles(psutil.Process(process.pid)):
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # to all, as a terminal does
        code = process.wait(timeout=60)
    finally:
        process.kill()
    said = (tmp_path / "stderr").read_text().splitlines()
    assert said[-1] == "error: interrupted"
    assert sum("error" in line or "Traceback" in line for line in said) == 1, said[:40]
    assert code == 130
    assert len(said) < 20
