"""What a stage read, recorded at the moment it starts.

DVC hashes dependencies when a command *ends* (dvc issue 11058): a file edited in between is recorded with the hash of a
version that did not run. The record holds the hashes at the start; `codex-ml verify` compares the two.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from codex_ml.core.config import Section
from codex_ml.core.contract import Contract
from codex_ml.core.cores import cores
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.installed_files import package_digest
from codex_ml.core.io import read_json
from codex_ml.core.loaded_code import start_code
from codex_ml.core.packages import deciding_packages, metadata_folders, normal, versions_of
from codex_ml.core.pipeline import StageSpec, remedy
from codex_ml.core.syntax_tree import ENDING, syntax_digest
from codex_ml.core.variables import recorded_variables

SCHEMA: Final = "codex-ml/lineage/1"
CODE = ("stages/", "src/")  # scripts, and folders of the library


class RecordedHashes(Contract):
    """Digests of a dependency.

    Attributes:
        size: in bytes.
        files: of a folder of code: name -> MD5.
        syntax: of code: name of a Python file -> its digest without comments, docstrings and layout. The name is in
            `files`, or that of the script.
    """

    md5: str
    sha256: str
    size: int
    files: dict[str, str] = Field(default_factory=dict)
    syntax: dict[str, str] = Field(default_factory=dict)


class Environment(Contract):
    """What ran the stage; a package that is not installed has no version, and no digest of its files.

    Attributes:
        start_code: SHA-256 of code that runs before the stage and that no package brings, by the name of its file; see
            `core.loaded_code`. Absent if there is none.
        variables: environment variables that may decide bytes; see `core.variables`. Absent if none is set.
    """

    python: str
    machine: str
    threads: int
    packages: dict[str, str | None]
    package_files: dict[str, str] = Field(default_factory=dict)
    start_code: dict[str, str] = Field(default_factory=dict)
    variables: dict[str, str] = Field(default_factory=dict)


class Record(Contract):
    """reports/<stage>/lineage.json as this version writes it; `parse_record` reads those of former versions too."""

    format: Literal["codex-ml/lineage/1"] = Field(alias="schema")
    stage: str
    command: str
    params: dict[str, Any]
    deps: dict[str, RecordedHashes]
    environment: Environment

    @property
    def data(self) -> dict[str, RecordedHashes]:
        """Dependencies that are not code."""
        return {path: hashes for path, hashes in self.deps.items() if not path.startswith(CODE)}

    @property
    def code(self) -> dict[str, RecordedHashes]:
        """The script and the folders of the library."""
        return {path: hashes for path, hashes in self.deps.items() if path.startswith(CODE)}


def record_path(stage: str) -> Path:
    """Path of the record of a stage, in its report folder; of the later stages, only `report` depends on it.

    So an edit that does not change a stage's outputs re-runs only that stage and the report, which prints the records.
    """
    return Path("reports") / stage / "lineage.json"


def read_record(stage: str) -> dict[str, Any]:
    """The record of a stage's last start; see `start_record`.

    Raises:
        UserError: when it is missing, or is not of the shape that `start_record` gives.
    """
    return parse_record(read_json(record_path(stage)), str(record_path(stage)))


def parse_record(record: Any, name: str) -> dict[str, Any]:
    """See `read_record`; `name` is for messages."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{name} is not a record of the form {SCHEMA}")
    deps = record.get("deps")
    if not isinstance(deps, dict) or not isinstance(record.get("params"), dict):
        raise UserError(f"{name}: expected mappings `deps` and `params`")
    for path, dep in deps.items():
        if not isinstance(dep, dict) or not all(isinstance(dep.get(kind), str) for kind in ("md5", "sha256")):
            raise UserError(f"{name}: deps: {path}: expected its md5 and sha256")
        for kind in ("files", "syntax"):
            digests = dep.get(kind, {})
            if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
                raise UserError(f"{name}: deps: {path}: expected `{kind}` to map names to digests")
    return record


def cpu_threads(wanted: int) -> int:
    """Number of threads that torch uses: `train.threads`, or all cores that this process may use where that is 0."""
    return wanted or cores()


def start_record(spec: StageSpec, params: Section) -> dict[str, Any]:
    """Hash each declared dependency of a stage, and list its parameters and environment.

    Args:
        params: at least the sections that the stage declares.

    Returns:
        a JSON value without time, host, user or absolute path: equal inputs give equal bytes.

    Raises:
        UserError: when a dependency is missing.
    """
    missing = [dep for dep in spec.deps if not Path(dep).exists()]
    if missing:
        what = "put it there, or bring it back with `git checkout` or `dvc pull`"
        raise UserError(f"{spec.name}: {', '.join(missing)} is missing; {remedy(Path(missing[0]), what)}")
    dumped, installed = params.model_dump(mode="json"), metadata_folders()
    versions, deciding = versions_of(installed), deciding_packages()
    outside = {"start_code": start_code(), "variables": recorded_variables()}
    return Record(
        format=SCHEMA,
        stage=spec.name,
        command=spec.cmd,
        params={name: dumped[name] for name in spec.params},
        deps={dep: _hashed(dep, is_code=dep in spec.code) for dep in sorted(spec.deps)},
        environment=Environment(
            python=platform.python_version(),
            machine=platform.machine(),
            threads=cpu_threads(dumped["train"]["threads"] if "train" in spec.params else 0),
            packages={name: versions.get(normal(name)) for name in deciding},
            package_files={
                name: package_digest(found[0]) for name in deciding if (found := installed.get(normal(name)))
            },
            **{name: found for name, found in outside.items() if found},
        ),
    ).as_json()


def _hashed(dep: str, *, is_code: bool) -> RecordedHashes:
    """The hashes of a dependency, and for code those of each file: `verify` then names the changed one.

    A folder of data has no list: it can hold 200,000 files, and DVC's cache has the list of what a stage wrote.
    """
    files: dict[str, str] = {}
    hashes = hash_path(Path(dep), listing=files if is_code else None)
    listed: dict[str, Any] = {"files": files} if files else {}
    if is_code:
        listed["syntax"] = _syntax(Path(dep), files or {Path(dep).name: hashes.md5})
    return RecordedHashes(md5=hashes.md5, sha256=hashes.sha256, size=hashes.size, **listed)


def _syntax(dep: Path, files: dict[str, str]) -> dict[str, str]:
    """Name -> digest of the syntax tree of each Python file of a dependency; a file that is no program has none.

    Raises:
        UserError: when a file changes meanwhile.
    """
    found = {}
    for name, md5 in files.items():
        if not name.endswith(ENDING):
            continue
        file = dep / name if dep.is_dir() else dep
        source = file.read_bytes()
        if hashlib.md5(source, usedforsecurity=False).hexdigest() != md5:
            raise UserError(f"{file} was edited while the stage started; run `dvc repro` again")
        if digest := syntax_digest(source):
            found[name] = digest
    return found


def deciding(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what decides no result: of Python files, only the digests of the syntax trees remain."""
    deps = dict(record["deps"])
    for path, dep in deps.items():
        if known := dep.get("syntax"):
            files = dep.get("files") or dict.fromkeys(known, dep["md5"])
            deps[path] = {name: known.get(name, md5) for name, md5 in files.items()}
    return {**record, "deps": deps}
