"""`.ci/install`, with the real pip and an index of the test's own: only what a lock has the hash of gets in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def wheel(folder: Path, name: str, version: str, code: str = "", requires: tuple[str, ...] = ()) -> str:
    """Write a wheel with one module; return its SHA-256."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},sha256={encoded(text)},{len(text)}\n" for file, text in files.items())
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def encoded(text: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def entry(requirement: str, *digests: str) -> str:
    return f"{requirement} \\\n" + " \\\n".join(f"    --hash=sha256:{digest}" for digest in digests) + "\n    # via x\n"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but pip, as venv makes it, and faster."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib"))
    for each in (packages / "pip", *packages.glob("pip-*.dist-info")):
        shutil.copytree(each, folder / SITE / each.name)
    return folder


class Project:
    """The locks of a project whose torch needs mpmath and, as a build for GPUs, triton; an index has all wheels."""

    def __init__(self, folder: Path, bare: Path) -> None:
        self.index, self.folder, self.venv = folder / "index", folder / "project", folder / "project/.venv"
        self.index.mkdir()
        self.folder.mkdir()
        shutil.copytree(bare, self.venv, symlinks=True)
        add = self.index
        self.gpu = wheel(add, "torch", "2.0", "build = 'gpu'", ("mpmath>=1", "triton==3.0 ; os_name == 'posix'"))
        cpu = hashlib.sha256(b"not in this index").hexdigest()
        setuptools, mpmath = wheel(add, "setuptools", "80.0"), wheel(add, "mpmath", "1.3.0", "x = 1")
        triton, toolkit = wheel(add, "triton", "3.0"), hashlib.sha256(b"for another system").hexdigest()
        wheel(add, "mpmath", "1.4.0", "x = 'newer'")
        lock = entry("mpmath==1.3.0", mpmath) + entry("setuptools==80.0 ; os_name == 'posix'", setuptools)
        (self.folder / "requirements.lock").write_text(lock)
        builds = entry("torch==2.0+cpu", cpu) + entry("torch==2.0", self.gpu)
        other = entry("cuda-toolkit==13.0 ; os_name == 'nt'", toolkit)
        (self.folder / "torch.lock").write_text(builds + other + entry("triton==3.0 ; os_name == 'posix'", triton))

    def install(self, torch: str = "") -> subprocess.CompletedProcess[str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index),
                    "PIP_NO_COMPILE": "1", "PIP_NO_CACHE_DIR": "1", "TORCH": torch}  # fmt: skip
        command = ["sh", ROOT / ".ci/install", ".venv"]
        return subprocess.run(command, cwd=self.folder, env={**mine, **settings}, capture_output=True, text=True)

    def installed(self) -> set[str]:
        return {path.name.removesuffix(".dist-info") for path in (self.venv / SITE).glob("*.dist-info")} - self.pip()

    def pip(self) -> set[str]:
        return {path.name.removesuffix(".dist-info") for path in (self.venv / SITE).glob("pip-*.dist-info")}

    def constraints(self) -> list[str]:
        return (self.venv / "constraints.txt").read_text().splitlines()


@pytest.fixture
def project(tmp_path: Path, bare: Path) -> Project:
    return Project(tmp_path, bare)


def test_a_build_for_gpus_brings_its_libraries_and_what_it_needs_comes_from_the_lock(project: Project) -> None:
    done = project.install()
    assert done.returncode == 0, done.stderr
    assert project.installed() == {"setuptools-80.0", "mpmath-1.3.0", "torch-2.0", "triton-3.0"}
    assert project.constraints() == [
        "mpmath==1.3.0", "setuptools==80.0 ; os_name == 'posix'", "torch==2.0", "triton==3.0"
    ]  # fmt: skip


def test_a_build_for_cpus_is_taken_where_pip_finds_it_and_brings_no_libraries(project: Project) -> None:
    digest = wheel(project.index, "torch", "2.0+cpu", "build = 'cpu'", ("mpmath>=1",))
    lock = project.folder / "torch.lock"
    lock.write_text(lock.read_text().replace(hashlib.sha256(b"not in this index").hexdigest(), digest))
    done = project.install()
    assert done.returncode == 0, done.stderr
    assert project.installed() == {"setuptools-80.0", "mpmath-1.3.0", "torch-2.0+cpu"}
    assert project.constraints()[-1] == "torch==2.0+cpu"


@pytest.mark.parametrize("name", ["mpmath-1.3.0", "torch-2.0", pytest.param("triton-3.0", marks=pytest.mark.slow)])
def test_a_wheel_with_other_bytes_is_refused_before_it_is_unpacked(project: Project, name: str) -> None:
    requires = ("mpmath>=1", "triton==3.0") if name == "torch-2.0" else ()
    found = wheel(project.index, *name.split("-"), "x = 'tampered'", requires)
    done = project.install()
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert f"Got        {found}" in done.stderr
    assert name not in project.installed()


def test_another_torch_cannot_change_what_the_lock_has_and_its_hash_is_written_down(project: Project) -> None:
    taken = wheel(project.index, "torch", "2.1+cu1", "", ("mpmath>=1", "triton"))
    done = project.install("torch==2.1+cu1 --no-index")
    assert done.returncode == 0, done.stderr
    assert project.installed() == {"setuptools-80.0", "mpmath-1.3.0", "torch-2.1+cu1", "triton-3.0"}
    report = json.loads((project.venv / "torch.json").read_text())
    hashes = {
        each["metadata"]["name"]: each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in report["install"]
    }
    assert hashes.keys() == {"torch", "triton"}
    assert hashes["torch"] == taken
    assert (
        'note: no lock has the hashes of TORCH="torch==2.1+cu1 --no-index"; those of what pip took are in '
        in done.stderr
    )
