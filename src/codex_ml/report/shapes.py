"""The shapes of what the stages write, as far as the report needs them."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from codex_ml.core.contract import Contract

CODE = ("stages/", "src/")  # scripts, and folders of the library


class RecordedHashes(Contract):
    md5: str
    sha256: str
    size: int
    files: dict[str, str] = Field(default={})  # of a folder of code: name -> MD5


class Environment(Contract):
    python: str
    machine: str
    threads: int
    packages: dict[str, str | None]


class Record(Contract):
    """reports/<stage>/lineage.json."""

    model_config = ConfigDict(extra="ignore")

    stage: str
    command: str
    params: dict[str, Any]
    deps: dict[str, RecordedHashes]
    environment: Environment

    @property
    def data(self) -> dict[str, RecordedHashes]:
        return {path: hashes for path, hashes in self.deps.items() if not path.startswith(CODE)}

    @property
    def code(self) -> dict[str, RecordedHashes]:
        return {path: hashes for path, hashes in self.deps.items() if path.startswith(CODE)}
