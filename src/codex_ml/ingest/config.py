"""The section `ingest` of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from codex_ml.core.bounds import LONGEST_BYTES, MOST_RECORDS
from codex_ml.core.config import Section
from codex_ml.core.plugins import BuiltInOr

RECORDS = ("jsonl", "csv", "tsv", "parquet", "datasets")  # built-in kinds whose records have fields
FOR_FILES = ("files", "wheels", "sdists", "zip", "tar", "git")  # kinds that hold files; a plug-in reads records
BUILT_IN = (*RECORDS, *FOR_FILES)
SourceKind = Annotated[str, BuiltInOr("readers", BUILT_IN)]


class Fields(Section):
    """Names of the fields of a record, for `jsonl`, `csv`, `tsv`, `parquet` and `datasets`."""

    text: str = "text"
    prompt: str = "prompt"
    completion: str = "completion"
    input: str = Field("", description="Field that is added to the prompt, such as input; empty: none")
    messages: str = "messages"
    tools: str = "tools"
    id: str = "id"
    group: str = Field("group", description="Records with the same value are never in different splits")
    licence: str = Field("licence", description="SPDX expression; a field named license is read too")
    language: str = "language"


class Source(Section):
    """One source of documents: a file, a folder or a glob, and how to read it."""

    kind: SourceKind = Field(
        description="jsonl, csv, tsv: files, also .gz .zst .bz2 .xz; parquet; datasets: a folder that Hugging Face "
        "datasets saved; files: a folder of code or text; wheels, sdists: a folder of Python packages; zip; tar; git: "
        "a local repository at a revision; or a reader of an installed package"
    )
    path: str = Field(min_length=1, description="File, folder or glob, relative to the repository")
    name: str = Field("", max_length=200, description="Name of the source in its documents; empty: the path")
    glob: str = Field("**/*.py", min_length=1, description="Which files of a folder or an archive are documents")
    include: tuple[str, ...] = Field((), description="More globs, in addition to glob")
    exclude: tuple[str, ...] = Field((), description="Globs of files that are left out")
    gitignore: bool = Field(True, description="files: leave out files that a .gitignore in the folder ignores")
    revision: str = Field("HEAD", min_length=1, description="git: branch, tag or commit")
    fields: Fields = Fields()
    licence: str = Field(
        "unknown",
        description="SPDX expression for documents that name no licence; write your own licence as LicenseRef-NAME",
    )
    group: Literal["none", "source", "folder"] = Field(
        "none",
        description="Documents that stay in one split. source: a whole archive or repository; folder: a top folder",
    )
    bad_records: Literal["fail", "skip"] = Field(
        "fail", description="fail: stop at the first bad record; skip: list it in refused.ndjson and continue"
    )
    max_bad_records: int = Field(
        1000, ge=1, le=MOST_RECORDS, description="skip: stop when there are more bad records than this"
    )

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("only relative paths inside the repository can be traced; copy or link the data there")
        return path

    @property
    def label(self) -> str:
        """The `source` of its documents: its name, else its path."""
        return self.name or self.path


class Ingest(Section):
    """`ingest`: which documents, from where, under which licence."""

    sources: tuple[Source, ...] = Field((Source(kind="wheels", path="data/raw/sample"),), min_length=1)
    max_document_bytes: int = Field(
        1_000_000, ge=1, le=LONGEST_BYTES, description="Longer documents are left out, counted and listed"
    )

    @property
    def plugins(self) -> dict[str, tuple[str, ...]]:
        """Kind of plug-ins -> what the section names of it."""
        return {"readers": tuple(source.kind for source in self.sources if source.kind not in BUILT_IN)}
