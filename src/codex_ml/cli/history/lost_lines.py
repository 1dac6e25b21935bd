"""Lines of the split ledger that a commit has and the folder, or the next commit, lacks.

A document of the test set whose line is lost is split again, and may get into train. No command removes lines:
`codex-ml ledger forget` adds tombstones. So a missing line was lost by a merge that took one side, by an experiment of
a person who had fewer lines, or by an edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codex_ml.cli.history.git_commands import files_of_commit, files_of_index, git_text, operation, parents_of_merge
from codex_ml.cli.history.versions import FOLDER, PATHS, Version, before_head, past, text_of, version_of
from codex_ml.core.errors import UserError
from codex_ml.core.paths import FORGOTTEN

ABBREVIATED = 12  # characters of a commit in messages


@dataclass(frozen=True)
class Lost:
    """What one version has and another lacks.

    Attributes:
        lines: of the ledger.
        tombstones: of what was forgotten.
        file: the first file that differs, for messages.
    """

    lines: int
    tombstones: int
    file: str


def lost(base: Version, now: Version, *, salt: str | None) -> Lost | None:
    """What `base` has and `now` lacks; None for nothing. Files of equal bytes are not read.

    Args:
        salt: split.salt; lines of another salt belong to another ledger and do not count. None: all lines count.
    """
    same = {part.name: part for part in now.parts}
    changed = [part for part in base.parts if part.name not in same or not part.equals(same[part.name])]
    if not changed:
        return None
    # with numpy, which most calls do not need
    from codex_ml.split.ledger.line_format import missing, salt_mark, unite_texts

    texts = [text_of(part) for part in changed if part.name != FORGOTTEN]
    lines = unite_texts(text for text in texts if salt is None or text.salt in ("", salt_mark(salt))).lines
    for _, text in now.texts():
        if not len(lines):
            break
        lines = missing(lines, text.lines)
    tombstones = base.tombstones() - now.tombstones() if any(part.name == FORGOTTEN for part in changed) else set()
    return Lost(len(lines), len(tombstones), changed[0].name) if len(lines) or tombstones else None


def baselines(*more: str) -> list[Version]:
    """The versions whose lines must not be lost: of HEAD, of the commits in a merge, and of the parents of HEAD.

    Args:
        more: other commits.
    """
    if not git_text("rev-parse", "--verify", "--quiet", "HEAD"):
        return []
    now = operation()
    others = now.others if now.name == "merge" else parents_of_merge()
    commits = ["HEAD", *dict.fromkeys([*others, *more])]
    return [version_of(files_of_commit(commit, *PATHS)) for commit in commits] + before_head()


def versions_between(known: str, pushed: str) -> list[Version]:
    """The versions whose lines a push must not lose: of the pushed commits, the latest first, and of the remote.

    This finds what a merge or a revert lost, even if no commit hook ran and other commits followed. Versions that DVC's
    cache lacks are left out: a push must not require a fetch of old versions.
    """
    changed = git_text("rev-list", "--full-history", f"{known}..{pushed}", "--", *PATHS).split()
    on_the_way = past(version_of(files_of_commit(commit, *PATHS)) for commit in changed)
    return [*on_the_way, version_of(files_of_commit(known, *PATHS))]


def lost_in(now: Version, bases: Iterable[Version], *, salt: str | None, named: bool = False) -> Iterator[str]:
    """A line for each version whose lines another lacks.

    Args:
        salt: see `lost`.
        named: whether `codex-ml merge` must be given the commit, because it does not look there by itself.
    """
    if now.name == FOLDER and not Path(FOLDER).exists():  # a clone before `dvc pull`, and `check` says so
        return
    for base in bases:
        try:
            found = None if base.is_same_folder(now) else lost(base, now, salt=salt)
        except UserError:
            if not base.is_past:
                raise
            continue
        if found:
            counts = [(found.lines, "line"), (found.tombstones, "tombstone")]
            number = " and ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts if count)
            where = FOLDER if now.name == FOLDER else f"{FOLDER} of {_short(now.name)}"
            yield (
                f"{where} lacks {number} that {_short(base.name)} has (in {found.file}), so documents of the test set "
                f"could get into train; `codex-ml merge{f' {_short(base.name)}' * named}` brings them back. To take "
                "documents out on purpose, use `codex-ml ledger forget`"
            )


def not_compared(now: Version, bases: Iterable[Version]) -> Iterator[str]:
    """One line for each version that cannot be read in full, so that lost lines may go unnoticed."""
    unlike = [base for base in bases if not base.is_same_folder(now)]
    for version in [*unlike, now] if unlike else []:
        if version.unreadable:
            yield f"{FOLDER} cannot be checked for lost lines: {version.unreadable}"


def version_in_index() -> Version:
    """The ledger as the next commit will have it."""
    return version_of(files_of_index(*PATHS)[0])


def _short(name: str) -> str:
    is_hash = len(name) >= 40 and set(name) <= set("0123456789abcdef")
    return name[:ABBREVIATED] if is_hash else name
