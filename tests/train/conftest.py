from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

RECIPE = Path(__file__).with_name("recipe.py")


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """tests/train/recipe.py: a run that takes half a second."""
    spec = importlib.util.spec_from_file_location("training_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deterministic torch on one thread, a fresh accelerate, and a separate working folder."""
    import torch
    from accelerate.state import AcceleratorState

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def train_in_processes() -> Iterator[Callable[..., list[int]]]:
    """Train in separate processes through `_serve` of recipe.py; return their exit codes, -9 for SIGKILL."""
    # looking for a GPU by CUDA itself would leave the children of the server without one
    environment = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    command = [sys.executable, str(RECIPE)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def run(folder: Path, **order: object) -> list[int]:
            server.stdin.write(json.dumps({"folder": str(folder), **order}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield run
        server.stdin.close()


@pytest.fixture(scope="session")
def train_and_kill(train_in_processes: Callable[..., list[int]]) -> Callable[..., int]:
    """Train in another process that kills itself; return its exit code."""

    def run(folder: Path, kill: dict[str, object], **changes: object) -> int:
        [code] = train_in_processes(folder, kill=kill, changes=changes)
        return code

    return run
