"""`codex-ml packages` ends with 1 and names package and file, or says that all is as it was locked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app


@pytest.fixture
def site(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one package, which counts as all that is installed; the lock has that package."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "pyproject.toml", "pyproject.toml")
    Path("requirements.lock").write_text("leaf==1.0 \\\n    --hash=sha256:00\n")
    info = tmp_path / "site/leaf-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text(
        "leaf.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nleaf-1.0.dist-info/RECORD,,\n"
    )
    (info.parent / "leaf.py").touch()
    monkeypatch.setattr("codex_ml.core.packages.deciding_packages", list)
    monkeypatch.setattr("sys.prefix", str(tmp_path))

    def installed() -> dict[str, list[str]]:
        return {each.name.partition("-")[0]: [str(each)] for each in info.parent.glob("*.dist-info")}

    monkeypatch.setattr("codex_ml.core.packages.metadata_folders", installed)
    return info.parent


def test_all_is_as_it_was_locked(site: Path) -> None:
    done = CliRunner().invoke(whole_app(), ["packages"])
    assert (done.exit_code, done.output) == (0, "packages: 1 packages, 1 files, all as they were locked\n")


def test_differences_are_named_one_per_line(site: Path) -> None:
    (site / "leaf.py").write_text("evil = 1\n")
    (site / "other-2.0.dist-info").mkdir()
    (site / "other-2.0.dist-info/RECORD").write_text("other-2.0.dist-info/RECORD,,\n")
    done = CliRunner().invoke(whole_app(), ["packages"])
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "other 2.0 is installed, but no lock and no extra asks for it; remove it",
        f"leaf 1.0: {site}/leaf.py is not the file that was installed",
        "error: 2 difference(s) between the installed packages and the locks; `make packages` builds .venv again",
    ]
