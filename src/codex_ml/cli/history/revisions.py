"""Find the commit that a name stands for: a Git revision or an experiment of DVC.

Git knows an experiment only by the whole name of its ref, refs/exps/1a/b2.../NAME. Used by: lineage, compare, merge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from codex_ml.cli.history.git_commands import git_text
from codex_ml.core.errors import UserError

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


@dataclass(frozen=True)
class NamedCommit:
    """A commit that a name stands for, and what kind of name it is."""

    kind: Literal["revision", "experiment"]
    commit: str


def commits_named(name: str) -> Iterator[NamedCommit]:
    """The commit that Git knows by this name, and the experiments of DVC with it."""
    if not name.startswith("-") and (commit := _known_to_git(name)):
        yield NamedCommit("revision", commit)
    for line in git_text("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines():
        commit, _, reference = line.partition(" ")
        found = EXPERIMENT.fullmatch(reference)
        if found and found[1] == name:
            yield NamedCommit("experiment", commit)


def commit_named(name: str) -> str:
    """The commit that a name stands for.

    Raises:
        UserError: when it stands for none, or for several.
    """
    found = list(commits_named(name))
    if not found:
        raise UserError(
            f"{name!r} is not a Git revision or an experiment of this clone; `git log --all --oneline` lists commits, "
            "`dvc exp list --all-commits` experiments, and `git fetch` gets more"
        )
    if len({named.commit for named in found}) > 1:
        places = " and ".join(f"the {named.kind} {named.commit[:12]}" for named in found)
        raise UserError(f"{name!r} stands for {places}; name the commit")
    return found[0].commit


def _known_to_git(name: str) -> str:
    return git_text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").split("\n")[-1]
