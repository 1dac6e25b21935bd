"""Who may import whom: imports point down, a stage imports no other stage, and nothing imports in a circle."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from codex_ml.core.pipeline import load_pipeline

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("codex_ml", cache_dir=None)


def test_the_contract_of_the_repository_is_kept() -> None:
    """The layers and the circles of [tool.importlinter] in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_no_module_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    """The contract compares siblings; here a package counts beside its own modules, which may import it, but not both ways."""
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def test_every_file_of_the_library_is_judged(graph: grimp.ImportGraph) -> None:
    """A folder without __init__.py would be in no graph."""
    files = (ROOT / "src/codex_ml").rglob("*.py")
    names = {".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__") for file in files}
    assert graph.modules == names


def test_a_stage_depends_on_the_code_of_no_other_stage() -> None:
    """The scripts are in no package, so the contract does not see them; `codex-ml check` holds their deps to their imports."""
    stages = load_pipeline(ROOT / "dvc.yaml")
    for name, spec in stages.items():
        packages = {Path(dep).parts[2] for dep in spec.code if dep.startswith("src/codex_ml/")}
        assert packages & stages.keys() == {name} & packages, name
