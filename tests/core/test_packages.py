"""The versions that decide bytes are those of the lock, and advice about packages works as it is printed."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from codex_ml.core import packages
from codex_ml.core.errors import UserError
from codex_ml.core.packages import (
    deciding_packages,
    install_extra,
    installed_versions,
    locked_versions,
    normal,
    unlike_the_lock,
)

NO_BYTES = {"nvidia-ml-py", "psutil", "rich"}  # they read the load of the machine, or draw the progress bar
EXTRAS_WITH_BYTES = ("fast", "gguf", "quantization")


def name_of(requirement):
    return normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0])


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_packages_of_a_record_are_all_that_the_project_asks_for_and_that_decide_bytes(
    project, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    extras = [r for extra in EXTRAS_WITH_BYTES for r in project["optional-dependencies"][extra]]
    asked = {name_of(r) for r in [*project["dependencies"], *extras]}
    found = deciding_packages()
    assert set(map(normal, found)) == asked - NO_BYTES
    assert found == sorted(found)
    assert {"peft", "sentencepiece", "tiktoken", "torch", "pyyaml", "gguf", "bitsandbytes"} <= set(found)
    assert not {"rich", "psutil", "pytest", "wandb"} & set(found)


def project_of(*dependencies):
    """A pyproject.toml in the current folder."""
    extras = "".join(f"{extra} = []\n" for extra in EXTRAS_WITH_BYTES)
    listed = ", ".join(map(repr, dependencies))
    Path("pyproject.toml").write_text(
        f"[project]\ndependencies = [{listed}]\n[project.optional-dependencies]\n{extras}"
    )


def test_names_of_packages_end_where_versions_extras_and_markers_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(
        '[project]\ndependencies = ["Zope.Interface>=1,<2", "torch", "a_b-c[x]~=1 ; os_name == \'nt\'", "rich>=13"]\n'
        '[project.optional-dependencies]\nfast = ["torch>1"]\ngguf = ["gguf == 1"]\nquantization = []\ndev = ["ruff"]\n'
    )
    assert deciding_packages() == ["Zope.Interface", "a_b-c", "gguf", "torch"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"^pyproject\.toml is missing; `git checkout pyproject\.toml` brings back the committed one$"),
        (
            "[project\n",
            r"^pyproject\.toml is not the one of this project \(.*\); `git checkout pyproject\.toml` brings",
        ),
        ("[tool]\n", r"^pyproject\.toml is not the one of this project \('project'\)"),
        ("<<<<<<< HEAD\n=======\n>>>>>>> b\n", r"^pyproject\.toml:1: .*conflict"),
    ],
)
def test_without_the_list_of_packages_nothing_is_recorded(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("pyproject.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        deciding_packages()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of distributions, first in sys.path, and a lock in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "site").mkdir()
    Path("requirements.lock").write_text(
        "# comment\npyarrow==24.0.0 \\\n    --hash=sha256:00\n    # via codex-ml\nhuggingface-hub==0.19.1 \\\n"
        "numpy==2.2.0 ; python_version < '3.12' \\\nnumpy==2.4.0 ; python_version >= '3.12' \\\n"
    )
    project_of("pyarrow>1", "huggingface_hub", "numpy", "gigatoken", "torch")

    def install(*folders):
        for name in folders:
            (tmp_path / "site" / name).mkdir()
            (tmp_path / "site" / name / "METADATA").write_text("")

    return install


def test_versions_are_read_from_folder_names_in_the_order_of_the_path(site, tmp_path, monkeypatch):
    site(
        "PyArrow-24.0.0.dist-info",
        "huggingface_hub-0.19.1.dist-info",
        "~umpy-1.0.dist-info",
        "torch-2.13.0+cpu.dist-info",
    )
    (tmp_path / "later/pyarrow-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", ["nowhere.zip", *sys.path, str(tmp_path / "later")])
    assert installed_versions() == {"pyarrow": "24.0.0", "huggingface-hub": "0.19.1", "torch": "2.13.0+cpu"}


def test_versions_are_those_of_importlib():
    from importlib import metadata

    found = installed_versions()
    assert found["pyarrow"] == metadata.version("pyarrow")
    assert found["huggingface-hub"] == metadata.version("huggingface_hub")


MEND = f"`{sys.executable} -m pip install --require-hashes --no-deps --no-build-isolation -r requirements.lock` brings"
CASES = {
    "as locked": (["pyarrow-24.0.0", "huggingface_hub-0.19.1", "numpy-2.2.0"], ""),
    "either version of a lock for several Pythons": (["pyarrow-24.0.0", "huggingface_hub-0.19.1", "numpy-2.4.0"], ""),
    "older": (["pyarrow-21.0.0", "huggingface_hub-0.19.1", "numpy-2.2.0"], "pyarrow 21.0.0 is installed, but requirements.lock has 24.0.0, and it decides bytes; " + MEND),
    "newer": (["pyarrow-24.0.0.1", "huggingface_hub-0.19.1", "numpy-2.2.0"], "pyarrow 24.0.0.1 is installed, but requirements.lock has 24.0.0"),
    "another spelling of the name": (["pyarrow-24.0.0", "huggingface.hub-0.18.0", "numpy-2.2.0"], "huggingface-hub 0.18.0 is installed, but requirements.lock has 0.19.1"),
    "none of several": (["pyarrow-24.0.0", "huggingface_hub-0.19.1", "numpy-2.3.0"], "numpy 2.3.0 is installed, but requirements.lock has 2.2.0 or 2.4.0"),
    "missing": (["huggingface_hub-0.19.1", "numpy-2.2.0"], "pyarrow is not installed, but requirements.lock has 24.0.0"),
    "two at once": (["pyarrow-24.0.0", "pyarrow-21.0.0", "huggingface_hub-0.19.1", "numpy-2.2.0"], "pyarrow 21.0.0 and 24.0.0 is installed"),
    "what the lock does not have": (["pyarrow-24.0.0", "huggingface_hub-0.19.1", "numpy-2.2.0", "gigatoken-9", "torch-1.0"], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_version_that_is_not_the_locked_one_is_named_with_what_mends_it(site, case):
    folders, message = CASES[case]
    site(*(f"{name}.dist-info" for name in folders))
    lines = list(unlike_the_lock())
    assert len(lines) == bool(message)
    assert all(line.startswith(message) for line in lines)


def test_torch_is_compared_with_the_one_that_was_set_up(site):
    site("torch-2.14.0.dist-info")
    Path("venv").mkdir()
    Path("venv/constraints.txt").write_text("numpy==1.0\ntorch==2.13.0+cu130\n")
    project_of("torch")
    assert locked_versions()["torch"] == {"2.13.0+cu130"}
    assert list(unlike_the_lock()) == [
        "torch 2.14.0 is installed, but this environment was set up with 2.13.0+cu130, and it decides bytes; "
        "`make packages` builds .venv again, with the same TORCH"
    ]


def test_check_refuses_another_version_than_the_locked_one(tmp_path, repository, run_python):
    """What `pip install` of a package does that moves another one: a folder of metadata is all that changes."""
    (tmp_path / "pyarrow-1.0.0.dist-info").mkdir()
    (tmp_path / "pyarrow-1.0.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 1.0.0\n")
    code = (
        "from codex_ml.core.packages import unlike_the_lock\n"
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nprint(*unlike_the_lock(), sep='\\n')"
    )
    locked = re.search(r"^pyarrow==(\S+)", (repository / "requirements.lock").read_text(), re.MULTILINE)[1]
    [line] = run_python("-c", code, cwd=repository).stdout.splitlines()
    assert line.startswith(f"pyarrow 1.0.0 is installed, but requirements.lock has {locked}, and it decides bytes; `")


def test_advice_for_an_extra_is_a_command_of_the_shell_that_keeps_the_lock(site, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    assert install_extra("x") == "run `venv/bin/python -m pip install --no-build-isolation -e '.[x]'`"
    Path("venv").mkdir()
    Path("venv/constraints.txt").write_text("")
    command = "venv/bin/python -m pip install --no-build-isolation -c venv/constraints.txt -e '.[x]'"
    assert install_extra("x") == f"run `{command}`"
    assert shlex.split(command)[-1] == ".[x]"
    odd = tmp_path / "it's (1)"
    copy = odd / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)  # a stage in the temporary copy of an experiment
    words = shlex.split(install_extra("x").removeprefix("run `").removesuffix("`"))
    assert words[-1] == "../../../../..[x]"


@pytest.mark.parametrize(
    "extra", ["prometheus", *(pytest.param(one, marks=pytest.mark.slow) for one in ("gguf", "no-such-extra"))]
)
def test_pip_takes_the_advice(repository, monkeypatch, extra):
    """pip itself reads the command; without an index it gets as far as looking for packages."""
    monkeypatch.chdir(repository)
    words = shlex.split(install_extra(extra).removeprefix("run `").removesuffix("`"))
    done = subprocess.run(
        [*words, "--dry-run", "--no-index", "--quiet"], capture_output=True, encoding="utf-8", check=False
    )
    if extra == "prometheus":  # installed or not: if not, pip looks for that package and for no other
        assert done.returncode == 0 or "prometheus-client" in done.stderr, done.stderr
    else:
        assert done.returncode == 0, done.stderr


WORDS = re.compile(
    r"codex-ml\[|(?<!\.cache/mlflow/bin/python -m )pip install (?!--no-build-isolation|--require-hashes)"
)


def test_no_message_and_no_page_names_a_package_of_an_index_that_this_is_not(repository):
    """Advice comes from `install_extra`; what pages say is written out, with the constraints."""
    files = [
        *(repository / "src").rglob("*.py"),
        *(repository / "stages").glob("*.py"),
        *(repository / "docs").glob("*.md"),
    ]
    found = []
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if WORDS.search(line) and "constraints.txt" not in line and file.name != "packages.py":
                found.append(f"{file.relative_to(repository)}:{number}: {line.strip()}")
    assert found == []


def test_every_extra_in_a_message_is_one_of_the_project(repository, project):
    calls = [
        call
        for file in (repository / "src").rglob("*.py")
        for call in re.findall(r"install_extra\(([^)]*)\)", file.read_text(encoding="utf-8"))
    ]
    literal = {call.strip("'\"") for call in calls if call[:1] in "'\""}
    assert literal == {"gguf", "quantization", "serve", "sweep"}
    from codex_ml.train.trackers import MODULES

    assert literal | MODULES.keys() <= project["optional-dependencies"].keys()


def test_the_typing_of_the_library_is_in_its_wheel(repository, tmp_path):
    """PEP 561: without py.typed in the package, type checkers ignore its annotations."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=repository, check=True, capture_output=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "codex_ml/py.typed" in archive.namelist()


def test_packages_module_reads_no_metadata(monkeypatch):
    """It runs in every check and at the start of every stage: names of folders only."""
    opened = []
    monkeypatch.setattr(packages.Path, "open", lambda self, *_: opened.append(self))
    installed_versions()
    assert opened == []
