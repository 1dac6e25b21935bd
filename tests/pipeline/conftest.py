"""Workspaces for the tests that run the real pipeline."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from workspace import Finished, Workspace, commit, make_workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run the whole pipeline once; tests that change something take `pipeline` instead."""
    workspace = make_workspace(tmp_path_factory.mktemp("pipeline"))
    first = workspace.dvc("repro")
    commit(workspace, "run")
    return Finished(workspace, first)


@pytest.fixture
def pipeline(finished: Finished, tmp_path: Path) -> Iterator[Workspace]:
    """An own copy of the finished workspace, at another path."""
    yield finished.workspace.copy(tmp_path / "another place")
    shutil.rmtree(tmp_path / "another place", ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("pipeline")
