"""Versions of the installed packages and of requirements.lock, and commands that install what the lock says.

A printed command can be copied as it is: it has the path of this interpreter and the constraints that `make setup`
wrote, so that installing an extra does not change the versions that decide bytes.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import read_text

PROJECT = Path("pyproject.toml")
REQUIREMENTS = Path("requirements.lock")
# Of the requirements in pyproject.toml: the extras that decide bytes, and the dependencies that do not, because they
# read the load of the machine or draw the progress bar.
EXTRAS = ("fast", "gguf", "quantization")
WITHOUT_BYTES = ("nvidia-ml-py", "psutil", "rich")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PyPA name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def deciding_packages() -> list[str]:
    """Names of the distributions that decide bytes, installed or not, as pyproject.toml spells them, sorted.

    Raises:
        UserError: when pyproject.toml is missing or is not the one of this project.
    """
    import tomllib

    text = read_text(PROJECT)
    try:
        project = tomllib.loads(text)["project"]
        extras = [project["optional-dependencies"][extra] for extra in EXTRAS]
        requirements = [NAME.match(line) for line in chain(project["dependencies"], *extras)]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        refuse_conflict(text, str(PROJECT))
        raise UserError(
            f"{PROJECT} is not the one of this project ({error}); `git checkout {PROJECT}` brings it back"
        ) from None
    return sorted({found[0] for found in requirements if found and normal(found[0]) not in WITHOUT_BYTES})


def installed_versions() -> dict[str, str]:
    """Normalised name -> version of every distribution that Python would import, from the names of their folders.

    importlib.metadata would open a file for each, which takes a hundred times as long. Two versions in one folder, as
    a broken upgrade leaves them, are joined by " and ".
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208 - a Path for each of thousands takes longer
        except OSError:  # not a folder, such as the zip file of the standard library
            continue
        here: dict[str, list[str]] = {}
        for name in names:
            if name.endswith(".dist-info") and "-" in name and not name.startswith("~"):  # ~: pip failed to remove it
                distribution, _, version = name.removesuffix(".dist-info").partition("-")
                here.setdefault(normal(distribution), []).append(version)
        found = {name: " and ".join(versions) for name, versions in here.items()} | found
    return found


def locked_versions() -> dict[str, set[str]]:
    """Normalised name -> versions in requirements.lock, which lacks torch: of torch, the version that was set up."""
    locked: dict[str, set[str]] = {}
    for file, kept in ((REQUIREMENTS, None), (_constraints(), "torch")):
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        refuse_conflict(text, str(file))  # both sides' versions would count
        for name, version in LOCKED.findall(text):
            if kept in (None, normal(name)):
                locked.setdefault(normal(name), set()).add(version)
    return locked


def unlike_the_lock() -> Iterator[str]:
    """One message per package that decides bytes and whose installed version is not the locked one."""
    installed, locked = installed_versions(), locked_versions()
    for name in map(normal, deciding_packages()):
        version, expected = installed.get(name), locked.get(name)
        if expected is None or version in expected:
            continue
        where = "this environment was set up with" if name == "torch" else f"{REQUIREMENTS} has"
        found = f"{name} {version} is installed" if version else f"{name} is not installed"
        yield f"{found}, but {where} {' or '.join(sorted(expected))}, and it decides bytes; {_mend(name)}"


def _mend(name: str) -> str:
    if name == "torch":
        return "`make packages` builds .venv again, with the same TORCH"
    options = "--require-hashes --no-deps --no-build-isolation"
    return f"`{_python()} -m pip install {options} -r {REQUIREMENTS}` brings the locked version back"


def install_extra(name: str) -> str:
    """The command that installs an extra of pyproject.toml, as the end of a message."""
    constraints = f"-c {_shown(_constraints())} " if _constraints().is_file() else ""
    checkout = Path(os.environ.get("DVC_ROOT") or ".")  # not the temporary copy that an experiment of DVC runs in
    target = f"{'.' if checkout.resolve() == Path.cwd() else checkout}[{name}]"
    return f"run `{_python()} -m pip install --no-build-isolation {constraints}-e {shlex.quote(target)}`"


def _constraints() -> Path:
    return Path(sys.prefix) / "constraints.txt"


def _python() -> str:
    return _shown(Path(sys.executable))


def _shown(path: Path) -> str:
    """A path as a quoted word for a shell, relative if it lies below the current folder."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
