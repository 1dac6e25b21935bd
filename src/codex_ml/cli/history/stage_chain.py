"""What a result was made from, according to dvc.lock and the records, at any Git revision.

A chain is shown only if all its stages belong to one run. dvc.lock holds each stage as that stage ended, so after
`dvc repro train` or a killed run it can hold today's tokenizer beside rows that yesterday's tokenizer encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.cli.history.code_edits import ONLY, edits_in_lock, is_same_program
from codex_ml.cli.history.git_commands import git_text, run_git
from codex_ml.cli.history.listing import cached, listing_of
from codex_ml.cli.history.revisions import commit_named
from codex_ml.core.contract import Contract
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.pipeline import LOCK, PARAMS, PIPELINE, Locked, StageSpec, chain_of, parse_lock, parse_pipeline
from codex_ml.core.record import parse_record, record_path
from codex_ml.core.side_note import SideNote, read_side_note
from codex_ml.core.strict_json import parse_json_file
from codex_ml.core.yaml import parse_yaml

SHOWN = 12  # hexadecimal digits of a hash on the screen: 48 bits
INPUTS = 4  # of a stage on the screen


class LineageStep(Contract):
    """A stage in what `codex-ml lineage --json` prints.

    Attributes:
        outs, deps: path -> MD5, as in dvc.lock.
        params: the sections of params.yaml that the stage read.
        record: of its start; null where neither Git nor DVC's cache holds it.
        environment: of its last run; null for another revision than the workspace, and where it did not run here.
    """

    stage: str
    desc: str
    outs: dict[str, str]
    deps: dict[str, str]
    params: dict[str, Any]
    record: dict[str, Any] | None
    environment: SideNote | None


@dataclass(frozen=True)
class ChainStep:
    """One stage of a chain: what dvc.lock and the record of its start hold."""

    spec: StageSpec
    locked: Locked
    record: dict[str, Any] | None  # None: neither Git nor DVC's cache has it

    def as_json(self, note: SideNote | None = None) -> dict[str, Any]:
        """The step for `--json`; see `LineageStep`."""
        return LineageStep(
            stage=self.spec.name,
            desc=self.spec.desc,
            outs=self.locked.outs,
            deps=self.locked.deps,
            params=self.locked.params,
            record=self.record,
            environment=note,
        ).as_json()


def chain_at(path: str, revision: str | None = None) -> list[ChainStep]:
    """The chain of `path` in a Git revision (in the workspace, when None), from the stage that wrote it backwards.

    Raises:
        UserError: for an unknown path or revision, a stage that has not run, or a file that cannot be read.
        CheckFailed: when the chain is of several runs.
    """
    texts = TrackedTexts(revision, None if revision is None else commit_named(revision))
    stages = parse_pipeline(parse_yaml(texts.read(PIPELINE), str(PIPELINE)), str(PIPELINE))
    lock = parse_lock(texts.read(LOCK))
    steps = []
    for spec in chain_of(path, stages):
        if spec.name not in lock:
            raise UserError(f"{LOCK} does not know stage {spec.name}; run `dvc repro`")
        locked = lock[spec.name]
        steps.append(ChainStep(spec, locked, texts.record(spec.name, locked.outs.get(str(record_path(spec.name)), ""))))
    for mixture in _mixtures(steps, texts.commit):
        raise CheckFailed(
            f"{LOCK} holds stages of several runs: {mixture}. Run `dvc repro`, or name a commit of one run with --rev"
        )
    return steps


@dataclass(frozen=True)
class TrackedTexts:
    """The tracked files of a commit, or of the workspace; `revision` is how the user called the commit."""

    revision: str | None = None
    commit: str | None = None

    def read(self, name: Path) -> str:
        """A file's text.

        Raises:
            UserError: when it is missing, is not a regular file (reading a pipe would wait forever), or is not UTF-8.
        """
        if self.commit is None and name.exists() and not name.is_file():
            raise UserError(f"{name} is not a regular file; put the file of that name there")
        try:
            return (self._show(name) if self.commit is not None else name.read_bytes()).decode("utf-8")
        except FileNotFoundError:
            raise UserError(f"{name} is missing; run `make repro` first") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 (byte {error.start})") from None

    def record(self, stage: str, md5: str) -> dict[str, Any] | None:
        """The record of a stage, from where its bytes are: the workspace or Git, else DVC's cache, by its hash."""
        file = record_path(stage)
        present = self._has(file) if self.commit is not None else file.is_file()
        data = self.read(file) if present else cached(md5)
        return None if data is None else parse_record(parse_json_file(data, str(file)), str(file))

    def _has(self, name: Path) -> bool:
        return run_git("cat-file", "-e", f"{self.commit}:./{name.as_posix()}").returncode == 0

    def _show(self, name: Path) -> bytes:
        done = run_git("show", f"{self.commit}:./{name.as_posix()}")
        if done.returncode:
            reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise UserError(f"{name} at {self.revision}: {reason[-1] if reason else 'not found'}")
        return done.stdout


def _mixtures(steps: list[ChainStep], commit: str | None) -> Iterator[str]:
    """One message for each sign that two stages of the chain do not belong to one run."""
    written = {path: (step, md5) for step in steps for path, md5 in step.locked.outs.items()}
    read: dict[str, tuple[ChainStep, str]] = {}
    sections: dict[str, tuple[ChainStep, Any]] = {}
    for step in reversed(steps):  # in the order in which they run
        name, locked = step.spec.name, step.locked
        if locked.cmd != step.spec.cmd or locked.deps.keys() ^ set(step.spec.deps) | locked.outs.keys() ^ set(
            step.spec.outs
        ):
            yield f"{name} ran with other deps, outs or cmd than {PIPELINE} has"
        for path, md5 in locked.deps.items():
            writer, now = _writer_of(path, written)
            if writer and now != md5:
                yield f"{name} read {path} {md5[:SHOWN]}, but {writer.spec.name} has written {now[:SHOWN]}"
            other, seen = read.setdefault(path, (step, md5))
            if seen != md5:
                yield f"{name} read {path} {md5[:SHOWN]}, but {other.spec.name} read {seen[:SHOWN]}"
        for section, value in locked.params.items():
            other, known = sections.setdefault(section, (step, value))
            if known != value:
                yield f"{name} ran with another {section} in {PARAMS} than {other.spec.name}"
        yield from _record_of_another_run(step, commit)


def _writer_of(path: str, written: dict[str, tuple[ChainStep, str]]) -> tuple[ChainStep | None, str]:
    """The stage that wrote `path`, and its hash there; (None, "") when nothing wrote it or nothing knows the hash."""
    if path in written:
        return written[path]
    for out, (step, md5) in written.items():
        if Path(path).is_relative_to(out) and (listing := listing_of(md5)):
            return step, listing.get(Path(path).relative_to(out).as_posix(), "nothing there")
    return None, ""


def _record_of_another_run(step: ChainStep, commit: str | None) -> Iterator[str]:
    for path, started in sorted(step.record["deps"].items() if step.record else ()):
        md5 = step.locked.deps.get(path, "")
        if md5 != started["md5"] and not is_same_program(path, md5, started, commit):
            yield f"{record_path(step.spec.name)} belongs to a start with another {path} than {LOCK} has"


def chain_summary(path: str, steps: list[ChainStep], revision: str | None) -> Iterator[str]:
    """One screen: the result's hash, the commit, where the data came from, and a line or two per stage."""
    yield f"{path}  {_digest_of(path, steps[0])}"
    yield f"commit  {_commit(revision)}"
    written = {out for step in steps for out in step.locked.outs}
    yield "stage         wrote, and from what"
    for step in steps:
        outs = {out: md5 for out, md5 in step.locked.outs.items() if out != str(record_path(step.spec.name))}
        shown = {out: md5 for out, md5 in outs.items() if not out.startswith("reports/")} or outs
        yield f"{step.spec.name:<13} {', '.join(f'{out} {md5[:SHOWN]}' for out, md5 in shown.items())}"
        inputs = [
            dep if any(Path(dep).is_relative_to(out) for out in written) else f"{dep} {step.locked.deps[dep][:SHOWN]}"
            for dep in step.spec.data
        ]
        more = f" and {len(inputs) - INPUTS} more" if len(inputs) > INPUTS else ""
        yield f"{'':<13} from {', '.join(inputs[:INPUTS])}{more}"
        if revision is None and (note := read_side_note(step.spec.name)):
            yield f"{'':<13} {_circumstances(note)}"
    for file, stages in _accepted(steps, commit_named(revision) if revision else None).items():
        yield f"{'accepted':<13} {file}: only {ONLY} differ from the file that ran in {', '.join(stages)}"


def _accepted(steps: list[ChainStep], commit: str | None) -> dict[str, list[str]]:
    """Edited file -> the stages for which dvc.lock names it, and the record the file that ran."""
    found: dict[str, list[str]] = {}
    for step in steps:
        for path, started in sorted(step.record["deps"].items() if step.record else ()):
            md5 = step.locked.deps.get(path, "")
            edits = edits_in_lock(path, md5, started, commit) if md5 != started["md5"] else None
            for edit in edits or ():
                found.setdefault(edit.path, []).append(step.spec.name)
    return found


def _circumstances(note: SideNote) -> str:
    """Run, commit and machine of a stage's last run."""
    commit = f"at commit {note.commit[:SHOWN]}" if note.commit else "without Git"
    changed = " with changes" if note.dirty else ""
    resolved = [str(note.resolved[key]) for key in ("device", "precision") if key in note.resolved]
    machine = ", ".join([*note.gpus, note.cpu, *resolved])
    return f"run {note.run} {commit}{changed}, {note.python}, {machine}"


def _digest_of(path: str, step: ChainStep) -> str:
    for out, md5 in step.locked.outs.items():
        if path == out:
            return md5
        if Path(path).is_relative_to(out):
            inside = (listing_of(md5) or {}).get(Path(path).relative_to(out).as_posix())
            return inside or f"in {out} {md5}"
    return f"holds {', '.join(out for out in step.locked.outs if Path(out).is_relative_to(path))}"


def _commit(revision: str | None) -> str:
    """Which commit the chain is of, and whether it is committed at all."""
    commit = commit_named(revision) if revision else git_text("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not commit:
        return f"none: {LOCK} is not in Git"
    changed = "" if revision else git_text("status", "--porcelain", "--", str(LOCK), str(PIPELINE), PARAMS)
    return f"{commit}, with changes to {LOCK}, {PIPELINE} or {PARAMS} that are not in it" if changed else commit
