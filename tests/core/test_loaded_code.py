"""Only recorded code runs: each module of a process comes from a file that a record holds."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from codex_ml.core import loaded_code
from codex_ml.core.errors import CheckFailed
from codex_ml.core.loaded_code import allow_code, refuse_unrecorded, start_code, unrecorded
from codex_ml.core.pipeline import load_pipeline

LIBRARY = tuple(f"src/codex_ml/{path.name}" for path in (Path(__file__).parents[2] / "src/codex_ml").glob("*/"))


@pytest.fixture
def spec(repository, monkeypatch, tmp_path_factory):
    """A stage that depends on the whole library; modules that other tests wrote and imported are out of the way."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(loaded_code, "_others", set())
    made = replace(load_pipeline()["split"], deps=LIBRARY)
    for found in unrecorded(made):
        path = Path(found.path).absolute()
        if any(map(path.is_relative_to, (tmp_path_factory.getbasetemp(), repository / "benchmarks"))):
            monkeypatch.delitem(sys.modules, found.name)
    return made


@pytest.fixture
def load(monkeypatch):
    """Import a file as a module; only this test sees it."""

    def load(name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("VALUE = 1\n")
        found = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, name, module)

    return load


def others(spec):
    """What was found, without the program of the tests, which is no stage."""
    root = f"{Path(__file__).parents[2] / 'tests'}/"
    return [
        (found.name, found.path, found.inside)
        for found in unrecorded(spec)
        if found.name != "__main__" and not str(Path(found.path).absolute()).startswith(root)
    ]


def test_the_library_python_and_the_packages_are_recorded(spec):
    assert len([name for name in sys.modules if name.partition(".")[0] == "codex_ml"]) > 10
    assert others(spec) == []


def test_a_module_of_the_library_that_no_dep_declares_is_named(spec):
    less = replace(spec, deps=tuple(dep for dep in LIBRARY if dep != "src/codex_ml/core"))
    found = others(less)
    assert ("codex_ml.core.errors", "src/codex_ml/core/errors.py", True) in found
    assert {path.split("/")[2] for _, path, _ in found} == {"core"}


def test_a_module_from_elsewhere_is_named(spec, load, tmp_path):
    load("xxhash_of_theirs", tmp_path / "site/xxhash_of_theirs.py")
    assert others(spec) == [("xxhash_of_theirs", f"{tmp_path}/site/xxhash_of_theirs.py", False)]
    allow_code([tmp_path / "site"])
    assert others(spec) == []


def test_a_file_that_no_installed_package_lists_is_named(spec, load, tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    monkeypatch.setattr(loaded_code, "_site_folders", lambda: (str(site),))
    monkeypatch.setattr(loaded_code, "_is_listed", loaded_code._is_listed)
    (site / "known-1.0.dist-info").mkdir(parents=True)
    (site / "known-1.0.dist-info/RECORD").write_text('known/__init__.py,sha256=x,3\n"known/with, comma.py",,\n')
    load("known", site / "known/__init__.py")
    load("known.comma", site / "known/with, comma.py")
    load("known.planted", site / "known/planted.py")
    load("planted", site / "planted.py")
    assert [(name, path) for name, path, _ in others(spec) if path.startswith(f"{site}/")] == [
        ("known.planted", f"{site}/known/planted.py"),
        ("planted", f"{site}/planted.py"),
    ]


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("{top}/.cache/planted.py", "add its folder to the stage's deps in dvc.yaml, or remove the file"),
        ("{tmp}/planted.py", "it is in no record; remove the file, or unset PYTHONPATH"),
    ],
)
def test_the_message_names_module_file_and_remedy(spec, load, tmp_path, monkeypatch, place, advice):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    file = Path(place.format(top=checkout, tmp=tmp_path))
    load("planted", file)
    monkeypatch.setattr(loaded_code, "_module_files", lambda: iter([("planted", str(file))]))
    shown = os.path.relpath(file, checkout) if file.is_relative_to(checkout) else str(file)
    with pytest.raises(CheckFailed) as told:
        refuse_unrecorded(spec)
    assert str(told.value) == f"split imported planted from {shown}: {advice}"


def test_code_that_runs_at_the_start_has_its_hash_in_the_record(run_python, tmp_path):
    """sitecustomize by PYTHONPATH, and a library of the linker: recorded by content, whatever folder they are in."""
    code = "import sys\ndel sys.modules[__name__]  # it hides\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    program = "from codex_ml.core.loaded_code import start_code\nprint(start_code())"
    path = os.pathsep.join([str(tmp_path), str(Path(loaded_code.__file__).parents[2])])
    done = run_python("-P", "-c", program, env={"PYTHONPATH": path})
    digest = hashlib.sha256(code.encode()).hexdigest()
    assert done.stdout == f"{{'sitecustomize.py': '{digest}'}}\n"
    plain = run_python("-P", "-c", program, env={"PYTHONPATH": str(Path(loaded_code.__file__).parents[2])})
    assert plain.stdout == "{}\n"


def test_a_pth_file_is_recorded_if_it_runs_code_and_no_package_lists_it(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    (site / "tool-1.0.dist-info").mkdir(parents=True)
    (site / "tool-1.0.dist-info/RECORD").write_text("tool.pth,sha256=x,9\ntool/__init__.py,,\n")
    (site / "tool.pth").write_text("import tool\n")
    (site / "folders.pth").write_text("/somewhere\n# import nothing\n")
    (site / "planted.pth").write_text("import os; os.environ['X'] = '1'\n")
    (site / "usercustomize.py").write_text("pass\n")
    monkeypatch.setattr(loaded_code, "_site_folders", lambda: (str(site),))
    monkeypatch.setattr(loaded_code, "_module_files", lambda: iter(()))
    monkeypatch.setattr(loaded_code, "_found_at_start", lambda: iter(()))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    library = tmp_path / "libfast.so"
    library.write_bytes(b"not really one")
    monkeypatch.setenv("LD_PRELOAD", f"{library} libabsent.so")
    assert start_code() == {
        "libfast.so": hashlib.sha256(b"not really one").hexdigest(),
        "planted.pth": hashlib.sha256(b"import os; os.environ['X'] = '1'\n").hexdigest(),
        "usercustomize.py": hashlib.sha256(b"pass\n").hexdigest(),
    }
    assert [path.name for path in loaded_code.installed_start_code()] == ["planted.pth", "usercustomize.py"]


@pytest.mark.parametrize("rule", ["/src/mine/extra.py", "/src/mine"])
def test_a_module_that_dvc_leaves_out_of_the_hash_of_its_dependency_is_named(spec, load, tmp_path, monkeypatch, rule):
    monkeypatch.chdir(tmp_path)
    Path(".dvcignore").write_text(f"{rule}\n")
    load("extra", tmp_path / "src/mine/extra.py")
    mine = replace(spec, deps=(*LIBRARY, "src/mine"))
    with pytest.raises(CheckFailed, match=r"^split imported extra from src/mine/extra.py: src/mine\S* is in no hash"):
        refuse_unrecorded(mine)


def test_a_module_in_a_linked_folder_of_a_dependency_is_named(spec, load, tmp_path, monkeypatch):
    """DVC does not look into such a folder."""
    monkeypatch.chdir(tmp_path)
    Path("src/mine").mkdir(parents=True)
    Path("other").mkdir()
    Path("src/mine/linked").symlink_to("../../other")
    load("extra", tmp_path / "src/mine/linked/extra.py")
    mine = replace(spec, deps=(*LIBRARY, "src/mine"))
    with pytest.raises(
        CheckFailed, match=r"^split imported extra from src/mine/linked/extra.py: src/mine/linked is a link"
    ):
        refuse_unrecorded(mine)
