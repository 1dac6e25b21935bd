"""Read Git: the files of a commit or of the index, and the operation in progress, such as a merge.

All paths are relative to the current folder. That is the top folder of the project, which may be a folder of a larger
repository. Used by: merge, the check for lost lines of the ledger, lineage, compare, verify, accept-code.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from codex_ml.core.errors import UserError

INDEX = "the index"
OURS, THEIRS = 2, 3  # stages of a conflict in the index; 0 is a file without one, 1 the common ancestor


def run_git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run Git and return the result, whatever the exit code is.

    Raises:
        UserError: when Git is not installed.
    """
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed, but this command needs it; install it") from None


def git_text(*arguments: str) -> str:
    """What Git prints, without the newline at the end; "" when it fails."""
    done = run_git(*arguments)
    return "" if done.returncode else os.fsdecode(done.stdout).removesuffix("\n")


def change_index(*arguments: str) -> None:
    """Run a Git command that must succeed, such as `add`.

    Raises:
        UserError: with what Git says.
    """
    done = run_git(*arguments)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise UserError(f"`git {' '.join(arguments[:2])}` failed: {said[:300]}")


@dataclass(frozen=True)
class Files:
    """The tracked files of a commit, or those of one stage of the index.

    Attributes:
        name: of the commit, or what the files are called in messages.
        blobs: path -> object name.
    """

    name: str
    blobs: dict[str, str]

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, None where there is no such file."""
        blob = self.blobs.get(path)
        if blob is None:
            return None
        done = run_git("cat-file", "blob", blob)
        if done.returncode:
            raise UserError(f"{path} of {self.name} cannot be read from Git; `git fsck` shows what is damaged")
        return done.stdout


def files_of_commit(commit: str, *paths: str) -> Files:
    """The files at `paths` in a commit; none where there is no such commit, as before the first one."""
    done = run_git("ls-tree", "-r", "-z", commit, "--", *paths)
    entries = done.stdout.split(b"\0") if done.returncode == 0 else []
    blobs = {}
    for entry in filter(None, entries):
        about, _, path = entry.partition(b"\t")
        kind, blob = about.split()[1:3]
        if kind == b"blob":
            blobs[os.fsdecode(path)] = blob.decode()
    return Files(commit, blobs)


def files_of_index(*paths: str) -> dict[int, Files]:
    """The files at `paths` in the index, by stage: 0 without a conflict, else 1 to 3."""
    stages: dict[int, dict[str, str]] = {0: {}, 1: {}, OURS: {}, THEIRS: {}}
    names = {0: INDEX, 1: "the common ancestor", OURS: "ours", THEIRS: "theirs"}
    for entry in filter(None, run_git("ls-files", "-s", "-z", "--", *paths).stdout.split(b"\0")):
        about, _, path = entry.partition(b"\t")
        mode, blob, stage = about.split()
        if mode != b"160000":  # a submodule
            stages[int(stage)][os.fsdecode(path)] = blob.decode()
    return {stage: Files(names[stage], blobs) for stage, blobs in stages.items()}


@dataclass(frozen=True)
class Operation:
    """The operation that Git has in progress.

    Attributes:
        name: "merge", "rebase", "cherry-pick", "revert", "am", or "" for none of these.
        others: the commits whose changes it brings in.
    """

    name: str
    others: tuple[str, ...]

    @property
    def go_on(self) -> str:
        """The command that completes it."""
        return f"git {self.name} --continue" if self.name not in ("", "merge") else "git commit"


def operation() -> Operation:
    """The operation that Git has in progress here."""
    words = [word for name in _STATE for word in ("--git-path", name)]
    state = dict(zip(_STATE, map(Path, git_text("rev-parse", *words).split("\n")), strict=False))
    if len(state) < len(_STATE):  # outside of Git
        return Operation("", ())
    if merged := _words_of(state["MERGE_HEAD"]):
        return Operation("merge", merged)
    if (state["rebase-apply"] / "applying").exists():
        return Operation("am", ())
    if state["rebase-merge"].exists() or state["rebase-apply"].exists():
        return Operation("rebase", _words_of(state["REBASE_HEAD"]))
    if picked := _words_of(state["CHERRY_PICK_HEAD"]):
        return Operation("cherry-pick", picked)
    if state["REVERT_HEAD"].is_file():
        return Operation("revert", ())  # it brings in no commit, it undoes one
    return Operation("", ())


_STATE = ("MERGE_HEAD", "rebase-merge", "rebase-apply", "REBASE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")


def _words_of(file: Path) -> tuple[str, ...]:
    return tuple(file.read_text(encoding="ascii").split()) if file.is_file() else ()


def parents() -> tuple[str, ...]:
    """The parents of HEAD: none of the first commit, several of a merge."""
    return tuple(git_text("rev-parse", "HEAD^@").split())


def parents_of_merge() -> tuple[str, ...]:
    """The parents of HEAD where it is a merge; none otherwise."""
    found = parents()
    return found if len(found) > 1 else ()


@dataclass(frozen=True)
class Sides:
    """The sides of a merge, whichever Git command makes it.

    Attributes:
        now: the operation in progress.
        head: the files of HEAD.
        commits: the files of HEAD and of each commit that is merged, or of each parent of a merge that has ended.
        index: the files of the index, by stage.
    """

    now: Operation
    head: Files
    commits: tuple[Files, ...]
    index: dict[int, Files]

    @property
    def unmerged(self) -> list[str]:
        """Paths in conflict, sorted."""
        return unmerged(self.index)

    @property
    def in_progress(self) -> bool:
        """Whether resolved files must be added to the index. `git stash pop` leaves conflicts and no other trace."""
        return bool(self.now.name or self.unmerged)


def taking_part() -> Sides:
    """The sides of the merge in progress, or of the commit HEAD if it is a merge."""
    now = operation()
    others = now.others if now.name else parents_of_merge()
    commits = tuple(files_of_commit(commit) for commit in ("HEAD", *others))
    return Sides(now, commits[0], commits, files_of_index())


def unmerged(index: dict[int, Files]) -> list[str]:
    """Paths in conflict, sorted."""
    return sorted(set().union(*(index[stage].blobs for stage in (1, OURS, THEIRS))))
