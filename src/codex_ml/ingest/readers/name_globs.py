"""The globs of a source: they choose which files of a folder or an archive are documents. Used by: ingest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from codex_ml.core.errors import UserError
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import names_seen
from codex_ml.ingest.readers.gitignore import translate


@dataclass(frozen=True)
class NameGlobs:
    """The globs of a source: `glob` and `include` choose names, `exclude` removes names.

    Globs have Git's meaning: `**/` matches any number of folders, also none. Excluding a folder excludes all that is in
    it.

    Attributes:
        matched: the globs that have matched a name; `accepts` adds to it. See `names_seen`.
    """

    document_globs: tuple[str, ...]
    excluded_globs: tuple[str, ...]
    matched: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, source: Source) -> NameGlobs:
        """The globs of a source.

        Raises:
            UserError: for an invalid glob.
        """
        for glob in (source.glob, *source.include, *source.exclude):
            if _expression(glob) is None:
                raise UserError(f"ingest.sources: {glob!r} is not a glob")
        return cls((source.glob, *source.include), source.exclude, names_seen.here.globs)

    def accepts(self, name: str) -> bool:
        """Whether the globs choose a relative name, with `/` between its parts."""
        accepted = False
        for glob in self.document_globs:
            if (not accepted or glob not in self.matched) and _matches(glob, name):
                accepted = True
                self.matched.add(glob)
        if not self.excluded_globs:
            return accepted
        parts = name.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for glob in self.excluded_globs:
            if (accepted or glob not in self.matched) and any(_matches(glob, part) for part in above):
                accepted = False
                self.matched.add(glob)
        return accepted


@lru_cache(maxsize=64)
def _expression(glob: str) -> re.Pattern[str] | None:
    """The expression for a whole name. Unlike a pattern of .gitignore, a glob without `/` matches at the top only."""
    glob = glob.rstrip("/")
    return translate(glob if glob.startswith("**/") or glob == "**" else f"/{glob.lstrip('/')}")


def _matches(glob: str, name: str) -> bool:
    expression = _expression(glob)
    return expression is not None and expression.fullmatch(name) is not None
