"""Whether the installed files are those that pip installed, and the installed distributions those of the locks.

pip compares each archive with the hash in a lock, and writes the hash of each file that it unpacks into the RECORD of
the distribution (PyPA, "Recording installed projects"). Here each file is compared with its RECORD. What no RECORD has
a hash of is named too, because Python imports it all the same. Byte code in `__pycache__` is left out: pip compiles it
and records no hash. So are scripts that begin with `#!`: they hold the path of the environment, and no stage runs one.

Used by: `codex-ml packages`, with which `make setup` ends; core.record.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codex_ml.core.cores import cores
from codex_ml.core.errors import UserError
from codex_ml.core.packages import version_of

LIBRARY = "codex-ml"  # installed as a link to the checkout
# Not of the package, but of how and from where pip installed it.
OF_PIP = ("INSTALLER", "REQUESTED", "direct_url.json")
SCRIPTS = os.path.normpath(f"{sys.prefix}/bin") + os.sep


def package_digest(folder: str) -> str:
    """SHA-256 of the names and hashes of a distribution's files, the same in every environment that it is installed in.

    Args:
        folder: its .dist-info folder.

    Raises:
        UserError: when RECORD cannot be read.
    """
    own = folder.rpartition("/")[2]
    # Scripts (../) hold the path of the environment; byte code has no hash, so its line ends with two commas.
    left_out = tuple(name.encode() for name in ("../", *(f"{own}/{name}," for name in OF_PIP)))
    lines = _record(folder).splitlines()
    kept = sorted(line for line in lines if not line.startswith(left_out) and not line.endswith(b",,"))
    return hashlib.sha256(b"\n".join(kept)).hexdigest()


def unlike_their_records(distributions: dict[str, list[str]]) -> tuple[int, list[str]]:
    """Compare every file with the RECORD of its distribution.

    Args:
        distributions: name -> .dist-info folders, as `metadata_folders` gives them.

    Returns:
        the number of files that were hashed, and one message per file that was changed, is missing or has no hash.
    """
    counts, problems, listed = 0, [], set[str]()
    folders = [(name, folder) for name, several in sorted(distributions.items()) for folder in several]
    with ThreadPoolExecutor(cores()) as pool:  # hashlib releases the lock of the interpreter
        for (name, folder), (count, wrong, paths) in zip(folders, pool.map(_checked, folders), strict=True):
            problems += [f"{name} {version_of(folder)}: {file} {fault}" for file, fault in wrong]
            counts, listed = counts + count, listed | paths
    sites = sorted({folder.rpartition("/")[0] for _, folder in folders})
    problems += [f"{file} belongs to no installed package" for site in sites for file in _loose(site, listed)]
    return counts, problems


def _checked(distribution: tuple[str, str]) -> tuple[int, list[tuple[str, str]], set[str]]:
    """The number of files of a distribution, (file, fault) of those that differ, and the absolute paths of all."""
    name, folder = distribution
    site = folder.rpartition("/")[0]
    try:
        recorded = list(_recorded(folder))
    except UserError:
        return 0, [(f"{folder}/RECORD", "cannot be read")], set()
    count, wrong, paths = 0, [], set()
    for file, expected in recorded:
        path = os.path.normpath(f"{site}/{file}")
        paths.add(path)
        if name == LIBRARY:
            wrong += [(path, "does not lead to the src of this folder")] if _leads_elsewhere(path) else []
        elif expected:
            count += 1
            wrong += [(path, fault)] if (fault := _fault(path, expected)) else []
        elif not path.endswith((".pyc", "/RECORD")):
            wrong.append((path, "has no hash in RECORD"))
    return count, wrong, paths


def _fault(path: str, expected: str) -> str:
    kind, _, digest = expected.partition("=")
    try:
        with open(path, "rb") as handle:  # noqa: PTH123 - of 36,000 files
            if path.startswith(SCRIPTS) and handle.read(2) == b"#!":
                return ""
            handle.seek(0)
            found = hashlib.file_digest(handle, kind).digest()
    except FileNotFoundError:
        return "is missing"
    except ValueError:
        return f"has a hash of an unknown kind in RECORD: {kind}"
    same = base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest
    return "" if same else "is not the file that was installed"


def _leads_elsewhere(path: str) -> bool:
    if not path.endswith(".pth"):
        return False
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if os.path.exists(path) else []  # noqa: PTH110
    return [*map(os.path.realpath, lines)] != [os.path.realpath("src")]


def _record(folder: str) -> bytes:
    try:
        return Path(folder, "RECORD").read_bytes()
    except OSError as error:
        raise UserError(f"{folder}/RECORD: {error.strerror}; `make packages` builds .venv again") from None


def _recorded(folder: str) -> Iterator[tuple[str, str]]:
    """(name, hash such as `sha256=...` or "") of each file in a RECORD; names are relative to the folder above."""
    text = _record(folder).decode("utf-8", "surrogateescape")
    yield from ((row[0], row[1]) for row in csv.reader(text.splitlines()) if len(row) > 1)


def _loose(site: str, listed: set[str]) -> Iterator[str]:
    """Files below a folder of packages that no RECORD lists."""
    for folder, folders, files in os.walk(os.path.normpath(site)):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (path for name in sorted(files) if (path := f"{folder}/{name}") not in listed)
