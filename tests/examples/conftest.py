"""The template package of examples/plugin, installed for a test as pip leaves it."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

from codex_ml.core.plugin_lock import write_lock
from codex_ml.core.plugins import KINDS, installed

PACKAGE = Path(__file__).parents[2] / "examples/plugin"
MODULE = "codex_ml_example"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder in which the package is installed; its modules are forgotten afterwards."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    info = site / f"{MODULE}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / MODULE).mkdir()
    for file in (PACKAGE / "src" / MODULE).glob("*.py"):
        (site / MODULE / file.name).write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield site
    for name in [name for name in sys.modules if name.split(".")[0] == MODULE]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def locked(package, here):
    """The current folder, with the lock of each kind of plug-in of the package."""
    for kind in (kind for kind in KINDS if KINDS[kind].locked):
        write_lock(kind, [plugin.name for plugin in installed(kind)])
    return here
