"""After a Git merge, unite files that are sets of lines, reset results that a rerun writes, and list the rest.

It works during a merge, rebase, cherry-pick or revert, after one that ended, after `git stash pop` and after
`dvc exp apply`. A second run changes nothing.

- the split ledger becomes the union of all sides' lines and tombstones, in each form in which a side keeps it;
- a result that conflicts (dvc.lock, reports) becomes that of HEAD, so that dvc.lock and reports are of one run, and
  `dvc repro` writes what no longer fits;
- the lists of ignored names that `dvc add` writes are united and sorted, because data/raw is hashed with them;
- people must resolve every other conflict.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codex_ml.cli.history.git_commands import (
    OURS,
    THEIRS,
    Files,
    Sides,
    change_index,
    files_of_commit,
    files_of_index,
    git_text,
    taking_part,
    unmerged,
)
from codex_ml.cli.history.ledger_merge import unite_ledger
from codex_ml.cli.history.revisions import commit_named
from codex_ml.core.conflicts import conflict_in, conflict_line, without_markers
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_bytes
from codex_ml.core.pipeline import LOCK, PIPELINE, parse_pipeline
from codex_ml.core.yaml import parse_yaml

RESULTS = "reports/"  # besides dvc.lock and the outputs of dvc.yaml that lie in Git
IGNORE = ".gitignore"


@dataclass
class MergeResult:
    """What the command did, and what is left.

    Attributes:
        operation: the operation that Git has in progress; "" for none.
        lines: of the ledger.
        brought: lines that HEAD lacks.
        added: lines that the folder lacked; Git has put those of both sides there where it could.
        tombstones: of the ledger.
        results: files that a rerun writes again.
        united: lists of ignored names.
        left: path -> what people must do.
        next_steps: commands.
    """

    operation: str
    lines: int = 0
    brought: int = 0
    added: int = 0
    tombstones: int = 0
    results: list[str] = field(default_factory=list)
    united: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    next_steps: list[str] = field(default_factory=list)


def unite(commits: Sequence[str] = ()) -> MergeResult:
    """Do all that the module's docstring lists, and return what was done and what is left.

    Args:
        commits: other commits whose ledger is united, too.

    Raises:
        UserError: outside of Git, and for a name that is not a commit.
    """
    if not git_text("rev-parse", "--verify", "--quiet", "HEAD"):
        raise UserError("this folder is not in a Git repository with a commit, so there is nothing to merge")
    commits = [commit_named(name) for name in commits]
    sides = taking_part()
    done = MergeResult(sides.now.name)
    _settle_results(sides, done)
    _unite_ignored(sides, done)
    ledger = unite_ledger(sides, commits)
    done.lines, done.brought = ledger.lines, ledger.brought
    done.added, done.tombstones = ledger.added, ledger.tombstones
    done.left.update(ledger.left)
    _list_the_rest(done)
    done.next_steps = _next_steps(sides, done, ledger.next_steps)
    return done


# --- results


def _settle_results(sides: Sides, done: MergeResult) -> None:
    """Make results those of HEAD where Git could not, or should not, merge them."""
    outs = _uncached_outs(sides.head)
    tracked = {*sides.unmerged, *sides.index[0].blobs}
    results = [path for path in sorted(tracked) if path == str(LOCK) or path.startswith(RESULTS) or path in outs]
    by_lines = _merged_by_lines(sides, results)
    for path in results:
        if path in sides.unmerged or path in by_lines or conflict_in(Path(path)):
            _take_from_head(sides.head, path)
            done.results.append(path)


def _uncached_outs(head: Files) -> set[str]:
    """Outputs that Git keeps, according to the dvc.yaml of HEAD: the one in the workspace may be in conflict."""
    text = head.read(str(PIPELINE))
    if text is None:
        return set()
    try:
        stages = parse_pipeline(parse_yaml(text.decode("utf-8", "replace"), str(PIPELINE)), str(PIPELINE))
    except UserError:  # HEAD has a broken dvc.yaml; `check` reports it
        return set()
    return {out for spec in stages.values() for out in spec.uncached}


def _merged_by_lines(sides: Sides, results: list[str]) -> set[str]:
    """Results that Git merged line by line, where .gitattributes did not prevent it: no run wrote such a file."""
    automatic = files_of_commit("AUTO_MERGE", *results) if sides.in_progress and results else None
    if automatic is None:
        return set()
    known = {(path, blob) for files in sides.commits for path, blob in files.blobs.items()}
    index = sides.index[0].blobs
    return {path for path, blob in automatic.blobs.items() if (path, blob) not in known and index.get(path) == blob}


def _take_from_head(head: Files, path: str) -> None:
    data = head.read(path)
    if data is None or (
        conflict_line(data) and path.endswith((".json", ".lock"))
    ):  # HEAD lacks it, or has markers in it
        change_index("rm", "--quiet", "--force", "--ignore-unmatch", "--", path)
        Path(path).unlink(missing_ok=True)
    else:
        change_index("checkout", "--quiet", "HEAD", "--", path)


# --- the lists of ignored names that `dvc add` writes


def _unite_ignored(sides: Sides, done: MergeResult) -> None:
    for path in sorted({*sides.unmerged, *sides.index[0].blobs}):
        if not path.endswith(f"/{IGNORE}") or not path.startswith(("data/", "models/")):
            continue
        blob = sides.index[0].blobs.get(path)
        if blob is not None and any(files.blobs.get(path) == blob for files in sides.commits):
            continue  # all of it is from one side
        texts = [sides.index[stage].read(path) or b"" for stage in (0, OURS, THEIRS)]
        texts.append(without_markers(Path(path).read_bytes()) if Path(path).is_file() else b"")
        lines = {line for text in texts for line in text.splitlines() if line}
        if not all(line.startswith(b"/") for line in lines):
            continue  # people wrote it, so the order may matter
        united = b"".join(line + b"\n" for line in sorted(lines))
        if not Path(path).is_file() or Path(path).read_bytes() != united or sides.index[0].read(path) != united:
            write_bytes(Path(path), united)
            change_index("add", "--force", "--", path)
            done.united.append(path)


# --- the rest


def _list_the_rest(done: MergeResult) -> None:
    """What only people can settle."""
    index = files_of_index()
    for path in unmerged(index):
        done.left.setdefault(path, _advice(path, index))
    for path in index[0].blobs:
        if path.endswith((".dvc", ".yaml", ".lock", IGNORE)) and (found := conflict_in(Path(path))):
            done.left.setdefault(path, found.removeprefix(f"{path}:"))


def _advice(path: str, index: dict[int, Files]) -> str:
    name = shlex.quote(path)
    if path not in index[OURS].blobs or path not in index[THEIRS].blobs:
        kept, gone = ("HEAD", "the other side") if path in index[OURS].blobs else ("the other side", "HEAD")
        return f"{gone} removed it, {kept} changed it; `git add {name}` keeps it, `git rm {name}` removes it"
    if path.endswith(".dvc"):
        return (
            f"both sides changed this data; take that of HEAD (`git checkout --ours {name}`) or the other "
            f"(`--theirs`), then `dvc checkout {name}` and `git add {name}`"
        )
    if found := conflict_in(Path(path)):
        line = found.removeprefix(f"{path}:").split(":")[0]
        return f"line {line}: keep what you want of both sides, delete the markers, then `git add {name}`"
    return (
        f"both sides changed it and it has no markers; keep that of HEAD (`git checkout --ours {name}`) or take the "
        f"other (`--theirs`), then `git add {name}`"
    )


def _next_steps(sides: Sides, done: MergeResult, steps: list[str]) -> list[str]:
    """The commands to go on with."""
    if done.left:
        return ["codex-ml merge"]
    changed = done.added or done.results or done.united or steps
    if not (changed or sides.in_progress or len(sides.commits) > 1):
        return []
    if sides.now.name not in ("", "merge"):
        return [*steps, sides.now.go_on, "dvc repro --pull"]
    # the second run names the accepted ledger in dvc.lock; without it `codex-ml verify` would not pass
    return [*steps, "dvc repro --pull", "codex-ml ledger accept", "dvc repro", "git add dvc.lock reports", "git commit"]


def merge_report(done: MergeResult) -> Iterator[str]:
    """What was done, in a few lines."""
    if done.lines:
        forgotten = f", {done.tombstones} forgotten" if done.tombstones else ""
        lacked = f"HEAD lacks {done.brought} of them, the folder lacked {done.added}"
        yield f"ledger: {done.lines} lines, {lacked}{forgotten}"
    if done.results:
        yield f"results: {_some(done.results)} as in HEAD; `dvc repro` updates them"
    if done.united:
        yield f"ignored names: {_some(done.united)} united"
    for path, advice in done.left.items():
        yield f"left for you: {path}: {advice}"
    steps = ", ".join(f"`{step}`" for step in done.next_steps)
    yield f"next: {steps}" if steps else "merge: nothing to do"


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:3])
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
