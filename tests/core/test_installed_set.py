"""A package that is missing, or that nothing asked for, is named; what extras and plug-ins bring is listed apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.core.installed_set import beyond_the_lock, missing_packages
from codex_ml.core.packages import metadata_folders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    Path("venv").mkdir()
    Path("venv/constraints.txt").write_text("mpmath==1.3.0\ntorch==2.0\ntriton==3.0\n")
    Path("requirements.lock").write_text(
        "mpmath==1.3.0 \\\n    --hash=sha256:00\n    # via torch\npywin32==312 ; sys_platform == 'win32' \\\n"
        "hf-xet==1.8.0 ; os_name == 'posix' or os_name == 'nt' \\\n    --hash=sha256:00\n"
    )
    for name in ("mpmath-1.3.0", "hf_xet-1.8.0", "torch-2.0", "triton-3.0", "pip-23.2", "codex_ml-0.1.0"):
        install(name)
    return tmp_path


def install(name: str, *requires: str, point: str = "") -> None:
    info = Path(f"site/{name}.dist-info")
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "".join(f"Requires-Dist: {each}\n" for each in requires))
    (info / "entry_points.txt").write_text(point)


def test_the_locked_packages_and_those_of_the_set_up_are_all_there_is(folder: Path) -> None:
    found = metadata_folders()
    assert list(missing_packages(found)) == []
    assert beyond_the_lock(found, ["mlflow-skinny"]) == ([], [])


def test_a_missing_package_is_named_if_this_system_needs_it(folder: Path) -> None:
    Path("site/hf_xet-1.8.0.dist-info").rename("site/gone")
    [line] = missing_packages(metadata_folders())
    assert line.startswith("hf-xet is not installed, but requirements.lock has 1.8.0; `")


def test_what_nothing_asks_for_is_told_from_what_extras_and_plugins_bring(folder: Path) -> None:
    install("mlflow_skinny-3.7", "Cachetools>=5 ; python_version > '3'", "mpmath")
    install("cachetools-6.0")
    install("my_detector-1.0", "leaf", point="[codex_ml.detectors]\nmine = my_detector:find\n")
    install("leaf-0.1")
    install("evil-9.9")
    asked, unknown = beyond_the_lock(metadata_folders(), ["mlflow-skinny", "wandb"])
    assert asked == ["cachetools 6.0", "leaf 0.1", "mlflow-skinny 3.7", "my-detector 1.0"]
    assert unknown == ["evil 9.9"]
