"""A file that Python could import in place of a module is refused, naming it; what nobody imports by mistake is not."""

from __future__ import annotations

from pathlib import Path

import pytest

import codex_ml
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.planted_files import planted_files, refuse_planted_files


@pytest.fixture
def checkout(workspace, repository):
    """`src` is a folder of this workspace, whose library is a link."""
    (workspace / "src").unlink()
    (workspace / "src").mkdir()
    (workspace / "src/codex_ml").symlink_to(repository / "src/codex_ml")
    return workspace


def found(checkout):
    return list(planted_files(load_pipeline()))


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("stages/random.py", "random"),
        ("stages/torch.py", "torch"),
        ("stages/helper.cpython-311-x86_64-linux-gnu.so", "helper"),
        ("stages/old.pyc", "old"),
        ("stages/lib/x.py", "lib"),
        ("src/xxhash.py", "xxhash"),
        ("src/own/__init__.py", "own"),
        ("src/sitecustomize.py", "sitecustomize"),
    ],
)
def test_code_that_no_stage_declares_is_named(checkout, path, module):
    (checkout / path).parent.mkdir(exist_ok=True)
    (checkout / path).touch()
    named = "/".join(Path(path).parts[:2])
    why = f"{named}: Python could import it as {module}, and no stage declares it; remove it, or add it to deps in dvc.yaml"
    assert found(checkout) == [why]


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("random.py", "random"),
        ("sitecustomize.py", "sitecustomize"),
        ("usercustomize.py", "usercustomize"),
        ("codex_ml.py", "codex_ml"),
        ("torch/__init__.py", "torch"),
        ("xxhash.abi3.so", "xxhash"),
        ("json.pyc", "json"),
    ],
)
def test_a_namesake_in_the_top_folder_is_named(checkout, path, module):
    (checkout / path).parent.mkdir(exist_ok=True)
    (checkout / path).touch()
    named = Path(path).parts[0]
    assert found(checkout) == [f"{named}: Python could import it in place of the module {module}; rename or remove it"]


def test_another_home_of_python_is_refused(checkout, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    assert found(checkout) == ["PYTHONHOME: it is set, so Python's own modules may come from another place; unset it"]


def test_a_namesake_in_a_folder_of_pythonpath_is_named(checkout, tmp_path, monkeypatch):
    """Not only once a module comes from there: that may be after hours, or hidden by the module itself."""
    theirs = tmp_path / "theirs"
    (theirs / "yaml").mkdir(parents=True)
    (theirs / "torch").mkdir()
    for name in ("xxhash.py", "yaml/__init__.py", "torch/notes.md", "mine.py", "sitecustomize.py"):
        (theirs / name).touch()
    monkeypatch.setenv("PYTHONPATH", f"{checkout}/src::{theirs}")
    assert found(checkout) == [
        f"{theirs}/{name}: Python would import it in place of the module {module}; unset PYTHONPATH"
        for name, module in (("xxhash.py", "xxhash"), ("yaml", "yaml"))
    ]


def test_an_archive_in_pythonpath_is_named_and_not_opened(checkout, tmp_path, monkeypatch):
    """A module in it can replace itself by the real one, so that nothing is seen when the stage ends."""
    (tmp_path / "modules.zip").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/modules.zip/lib:{tmp_path}/missing:{tmp_path}/modules.zip")
    why = "Python would import modules out of this file; unset PYTHONPATH"
    assert found(checkout) == [f"{tmp_path}/modules.zip/lib: {why}", f"{tmp_path}/modules.zip: {why}"]


@pytest.mark.parametrize(
    ("old", "new", "is_named"),
    [("0.1.0", "2.0rc1", False), ("# DVC", "# it", False), ("sys.exit(2)", "sys.exit(3)", True)],
)
def test_code_in_the_package_itself_is_named_because_no_stage_depends_on_it(checkout, monkeypatch, old, new, is_named):
    file = checkout / "copy.py"
    text = Path(codex_ml.__file__).read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    monkeypatch.setattr(codex_ml, "__file__", str(file))
    assert [problem.split(":")[0] for problem in found(checkout) if "copy" not in problem] == [
        "src/codex_ml/__init__.py"
    ] * is_named


def test_all_of_several_files_are_named_on_one_line(checkout):
    for name in ("stages/torch.py", "stages/yaml.py", "json.py"):
        (checkout / name).touch()
    with pytest.raises(UserError) as error:
        refuse_planted_files(load_pipeline())
    assert str(error.value) == f"{found(checkout)[0]} (and 2 more: stages/yaml.py, json.py)"
    for name in ("ast.py", "bz2.py", "csv.py"):
        (checkout / name).touch()
    with pytest.raises(UserError, match=r"\(and 5 more: stages/yaml\.py, ast\.py, bz2\.py, csv\.py, \.\.\.\)$"):
        refuse_planted_files(load_pipeline())


def test_what_is_in_nobodys_way_is_not_refused(checkout):
    for name in (
        "plot_mine.py", "setup.cfg", "random.txt", "my-random.py", "torch/readme.md", "stages/notes.md",
        "stages/__pycache__/train.cpython-311.pyc", "src/codex_ml.egg-info/PKG-INFO", ".hidden.py",
    ):  # fmt: skip
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).touch()
    assert found(checkout) == []


def test_a_package_of_the_user_in_src_is_allowed_if_a_stage_depends_on_it(checkout):
    (checkout / "src/mine/inner").mkdir(parents=True)
    pipeline = (
        Path("dvc.yaml")
        .read_text()
        .replace("      - stages/ingest.py\n", "      - stages/ingest.py\n      - src/mine/inner\n")
    )
    Path("dvc.yaml").write_text(pipeline)
    assert found(checkout) == []
