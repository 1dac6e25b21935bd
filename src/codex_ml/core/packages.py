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
from codex_ml.core.folders import origin
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
    return versions_of(metadata_folders())


def metadata_folders() -> dict[str, list[str]]:
    """Normalised name -> the .dist-info folders of every distribution that Python would import, mostly one each."""
    found: dict[str, list[str]] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208 - a Path for each of thousands takes longer
        except OSError:  # not a folder, such as the zip file of the standard library
            continue
        here: dict[str, list[str]] = {}
        for name in names:
            if name.endswith(".dist-info") and "-" in name and not name.startswith("~"):  # ~: pip failed to remove it
                here.setdefault(normal(name.partition("-")[0]), []).append(f"{folder or '.'}/{name}")
        found = here | found
    return found


def versions_of(distributions: dict[str, list[str]]) -> dict[str, str]:
    """Name -> version, or versions, of what `metadata_folders` gives."""
    return {name: " and ".join(map(version_of, folders)) for name, folders in distributions.items()}


def version_of(metadata_folder: str) -> str:
    """The version in the name of a .dist-info folder."""
    return metadata_folder.rpartition("/")[2].removesuffix(".dist-info").partition("-")[2]


def locked_versions() -> dict[str, set[str]]:
    """Normalised name -> versions in requirements.lock; of torch and what its build needs, what was set up."""
    locked = _versions_in(REQUIREMENTS)
    return _versions_in(_constraints()) | locked


def _versions_in(file: Path) -> dict[str, set[str]]:
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    refuse_conflict(text, str(file))  # both sides' versions would count
    locked: dict[str, set[str]] = {}
    for name, version in LOCKED.findall(text):
        locked.setdefault(normal(name), set()).add(version)
    return locked


def unlike_the_lock() -> Iterator[str]:
    """One message per package whose installed version is not the locked one, or that decides bytes and is missing."""
    installed, locked = installed_versions(), locked_versions()
    deciding = set(map(normal, deciding_packages()))
    for name, expected in sorted(locked.items()):
        version = installed.get(name)
        if version in expected or (version is None and name not in deciding):
            continue
        found = f"{name} {version} is installed" if version else f"{name} is not installed"
        why = ", and it decides bytes" if name in deciding else ""
        yield f"{found}, but {expected_in(name)} {' or '.join(sorted(expected))}{why}; {mend(name)}"


def expected_in(name: str) -> str:
    """What expects a version of a package, as the begin of a clause."""
    return f"{REQUIREMENTS} has" if name in _versions_in(REQUIREMENTS) else "this environment was set up with"


def mend(name: str) -> str:
    """The command that brings the locked version of a package back, as the end of a message."""
    if name not in _versions_in(REQUIREMENTS):
        return "`make packages` builds .venv again, with the same TORCH"
    options = "--require-hashes --no-deps --no-build-isolation"
    return f"`{_python()} -m pip install {options} -r {REQUIREMENTS}` brings the locked version back"


def install_extra(name: str) -> str:
    """The command that installs an extra of pyproject.toml, as the end of a message."""
    constraints = f"-c {_shown(_constraints())} " if _constraints().is_file() else ""
    checkout = origin()  # not the temporary copy that an experiment of DVC runs in
    target = f"{'.' if checkout.resolve() == Path.cwd() else checkout}[{name}]"
    return f"run `{_python()} -m pip install --no-build-isolation {constraints}-e {shlex.quote(target)}`"


def _constraints() -> Path:
    return Path(sys.prefix) / "constraints.txt"


def _python() -> str:
    return _shown(Path(sys.executable))


def _shown(path: Path) -> str:
    """A path as a quoted word for a shell, relative if it lies below the current folder."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
