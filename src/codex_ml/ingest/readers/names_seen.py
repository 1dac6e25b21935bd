"""Which globs and fields in the settings of a source the source really has; the others are mistakes of the user.

Several processes read a source in pieces. Each process records here what it has seen, and `ingest` joins the records.
Used by: ingest.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.ingest.config import FOR_FILES, Fields, Source

MOST_FIELDS = 1000  # field names that are kept for a message


@dataclass(frozen=True)
class NamesSeen:
    """The names that were seen in a piece of a source.

    Attributes:
        globs: globs that have matched a file name.
        fields: field names of records; collected until all fields of the settings were seen.
    """

    globs: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)

    def add(self, other: NamesSeen) -> None:
        self.globs.update(other.globs)
        self.fields.update(other.fields)

    def see_fields(self, names: Collection[str], looked_for: set[str]) -> None:
        """Record the field names of a record; after MOST_FIELDS names, record only those in `looked_for`."""
        if not looked_for <= self.fields:
            self.fields.update(names if len(self.fields) < MOST_FIELDS else looked_for.intersection(names))

    def clear(self) -> None:
        self.globs.clear()
        self.fields.clear()


here = NamesSeen()  # what this process has seen in the source that it reads


def renamed(names: Fields) -> dict[str, str]:
    """Our field name -> the field name in the records, for fields that the user has renamed."""
    defaults = Fields().model_dump()
    return {ours: theirs for ours, theirs in names.model_dump().items() if theirs != defaults[ours]}


def refuse_unmatched_names(source: Source, number: int, seen: NamesSeen) -> None:
    """Raise for a glob that matched no file, and for a field that no record has.

    Args:
        number: index of the source in ingest.sources, from 0.
        seen: what all processes have seen in the source.

    Raises:
        UserError: names the key, the value, and the names that exist.
    """
    where = f"ingest.sources.{number}"
    if source.kind not in FOR_FILES:
        present = seen.fields
        for ours, theirs in renamed(source.fields).items():
            if present and theirs not in present:
                raise UserError(
                    f"{where}.fields.{ours}: no record of {source.path} has {theirs!r}; {_suggestion(theirs, present)}"
                )
        return
    if Path(source.path).is_file() and source.kind == "files":  # globs do not apply to a single file
        return
    globs = [("exclude", glob) for glob in source.exclude]
    if Path(source.path).exists() or source.kind != "files":  # otherwise the path itself is the glob
        globs += [("include", glob) for glob in source.include]
        if "glob" in source.model_fields_set or not source.include:
            globs.insert(0, ("glob", source.glob))
    for key, glob in globs:
        if glob not in seen.globs:
            ignored = "; files that a .gitignore ignores do not count" if source.kind == "files" else ""
            raise UserError(
                f"{where}.{key}: {glob!r} matches no file of {source.path}; a glob matches whole names below it, such "
                f"as **/*.py or docs/**{ignored}"
            )


def _suggestion(name: str, present: set[str]) -> str:
    near = difflib.get_close_matches(name, present, n=1)
    listed = ", ".join(sorted(present)[:20]) + (", ..." if len(present) > 20 else "")
    return f"did you mean {near[0]}?" if near else f"its fields are {listed}"
