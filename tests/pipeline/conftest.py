"""Workspaces for the tests that run the real pipeline."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from workspace import AWKWARD, Finished, Workspace, commit, make_workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Finished:
    """The whole pipeline after a run, which all workers share; tests that change something take `pipeline` instead."""
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "finished"
    shared.mkdir(exist_ok=True)
    log = shared / "stdout"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            made = make_workspace(shared)
            printed = made.dvc("repro").stdout
            commit(made, "run")
            log.write_text(printed, encoding="utf-8")
    made = Workspace(shared / AWKWARD, shared / "wheels")
    workspace = made.copy(tmp_path_factory.mktemp("pipeline") / AWKWARD)
    return Finished(workspace, str(made.root), log.read_text(encoding="utf-8"))


@pytest.fixture
def pipeline(finished: Finished, tmp_path: Path) -> Iterator[Workspace]:
    """An own copy of the finished workspace, at another path."""
    yield finished.workspace.copy(tmp_path / "another place")
    subprocess.run(["rm", "-rf", tmp_path / "another place"], check=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("pipeline")
