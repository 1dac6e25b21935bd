"""The names in the settings of a source (globs, fields), and which of them the source has: the others are mistakes.

A source is read in pieces, by several processes. Each process keeps here what it has seen of the source that it reads;
`ingest` puts the pieces together. Used by: ingest.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.ingest.config import RECORDS, Fields, Source

MOST_FIELDS = 1000  # names of fields that are kept for a message


@dataclass(frozen=True)
class NamesSeen:
    """What a piece of a source has shown.

    Attributes:
        globs: those that have matched a name.
        fields: of records, as long as one that is looked for was not found.
    """

    globs: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)

    def add(self, other: NamesSeen) -> None:
        self.globs.update(other.globs)
        self.fields.update(other.fields)

    def see_fields(self, names: Collection[str], looked_for: set[str]) -> None:
        """Keep the names of a record's fields, of very many those that are looked for."""
        if not looked_for <= self.fields:
            self.fields.update(names if len(self.fields) < MOST_FIELDS else looked_for.intersection(names))

    def clear(self) -> None:
        self.globs.clear()
        self.fields.clear()


here = NamesSeen()  # by this process, of the source that it reads


def renamed(names: Fields) -> dict[str, str]:
    """Field of ours -> field of the records, where the user has named one."""
    defaults = Fields().model_dump()
    return {ours: theirs for ours, theirs in names.model_dump().items() if theirs != defaults[ours]}


def refuse_unmatched_names(source: Source, number: int, seen: NamesSeen) -> None:
    """Raise for a glob that matched no name, and for a field that no record had.

    Args:
        number: of the source in ingest.sources.

    Raises:
        UserError: naming the key, the value, and what there is.
    """
    where = f"ingest.sources.{number}"
    if source.kind in RECORDS:
        present = seen.fields
        for ours, theirs in renamed(source.fields).items():
            if present and theirs not in present:
                raise UserError(
                    f"{where}.fields.{ours}: no record of {source.path} has {theirs!r}; {_suggestion(theirs, present)}"
                )
        return
    if Path(source.path).is_file() and source.kind == "files":  # one file is taken whatever it is called
        return
    globs = [("exclude", glob) for glob in source.exclude]
    if Path(source.path).exists() or source.kind != "files":  # else the path itself is the glob
        globs += [("include", glob) for glob in source.include]
        if "glob" in source.model_fields_set or not source.include:
            globs.insert(0, ("glob", source.glob))
    for key, glob in globs:
        if glob not in seen.globs:
            ignored = "; what a .gitignore leaves out is none of them" if source.kind == "files" else ""
            raise UserError(
                f"{where}.{key}: {glob!r} matches no file of {source.path}; a glob is of whole names below it, such as "
                f"**/*.py or docs/**{ignored}"
            )


def _suggestion(name: str, present: set[str]) -> str:
    near = difflib.get_close_matches(name, present, n=1)
    listed = ", ".join(sorted(present)[:20]) + (", ..." if len(present) > 20 else "")
    return f"did you mean {near[0]}?" if near else f"there are {listed}"
