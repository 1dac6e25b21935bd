"""The chain of hashes from a result back to the downloaded bytes, computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from codex_ml.cli.checks.outside_code import refuse_other_start_code, refuse_planted
from codex_ml.cli.history.code_edits import ONLY, EditedCode, edited_code
from codex_ml.cli.history.first_difference import explained
from codex_ml.cli.history.listing import changed_file
from codex_ml.cli.history.lost_lines import baselines, lost_in
from codex_ml.cli.history.versions import version_in_folder
from codex_ml.cli.param_rules import load_params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.hashing import Hashes, hash_path
from codex_ml.core.paths import SAMPLE_BENCHMARKS
from codex_ml.core.pipeline import LOCK, PARAMS, PIPELINE, Locked, StageSpec, chain_of, load_lock, load_pipeline
from codex_ml.core.plugin_lock import lock_path, locked_names, refuse_other_code
from codex_ml.core.plugins import KINDS
from codex_ml.core.record import read_record, record_path
from codex_ml.core.yaml import read_yaml


@dataclass(frozen=True)
class Link:
    """One hash of the chain that was recomputed and agreed."""

    stage: str
    role: str  # "output", "input", "code", "params", "source", or "accepted" (see `path`)
    path: str  # of an accepted edit: the file in which only comments, docstrings or layout differ from the one that ran
    md5: str  # of an accepted edit: the SHA-256 of the syntax tree; of a source: the SHA-256


@dataclass(frozen=True)
class Verification:
    """What `codex-ml verify --json` prints, also where a hash differs.

    Attributes:
        holds: whether the whole chain holds.
        links: those that hold, from the result backwards, up to the first that does not.
        problem: the message about that one; null where all hold.
    """

    holds: bool
    links: list[Link]
    problem: str | None = None


def verification(path: str | None = None) -> Verification:
    """All links of `path` that hold, and the first that does not; see `verified_links`.

    Raises:
        UserError: when the pipeline has not run, or `path` is not a result.
    """
    links: list[Link] = []
    try:
        links.extend(verified_links(path))
    except CheckFailed as error:
        return Verification(holds=False, links=links, problem=str(error))
    return Verification(holds=True, links=links)


def verified_links(path: str | None = None) -> Iterator[Link]:
    """Recompute every hash from `path` (all results, when None) back to data/sample.lock; yields the links that hold.

    Raises:
        CheckFailed: at the first broken link, naming it, or at a file of the chain that cannot be read.
        UserError: when the pipeline has not run, or `path` is not a result.
    """
    if not (LOCK.exists() or LOCK.is_symlink()):
        raise UserError(f"{LOCK} is missing; run `make repro` first")
    with _findings():
        stages, lock = load_pipeline(), load_lock()
    hashes = _Hashes()
    refuse_planted(stages)
    _refuse_lost_lines()
    for spec in chain_of(path, stages) if path else reversed(list(stages.values())):
        if spec.name not in lock:
            raise UserError(f"{LOCK} does not know stage {spec.name}; run `dvc repro`")
        yield from _verify_stage(spec, lock, hashes)


@contextmanager
def _findings() -> Iterator[None]:
    """Turn a UserError into CheckFailed: a file that cannot be read was damaged after the run, which is a finding."""
    try:
        yield
    except UserError as error:
        raise CheckFailed(str(error)) from None


def _refuse_lost_lines() -> None:
    """Refuse lost lines of the ledger: the test set may then be in train, even if all hashes agree."""
    with _findings():
        for problem in lost_in(version_in_folder(), baselines(), salt=load_params().split.salt):
            raise CheckFailed(problem)


class _Hashes:
    """Hashes of paths; each path is hashed once, even if several stages read it."""

    def __init__(self) -> None:
        self._known: dict[str, Hashes] = {}

    def of(self, stage: str, path: str) -> Hashes:
        if path not in self._known:
            if not Path(path).exists():
                raise CheckFailed(f"{stage}: {path} is missing; `dvc repro` or `dvc checkout` brings it back")
            if not (Path(path).is_file() or Path(path).is_dir()):
                raise CheckFailed(f"{stage}: {path} is neither a file nor a folder")
            try:
                self._known[path] = hash_path(Path(path))
            except UserError as error:  # such as a link that leads out, put there after the run
                raise CheckFailed(f"{stage}: {error}") from None
        return self._known[path]


def _verify_stage(spec: StageSpec, lock: dict[str, Locked], hashes: _Hashes) -> Iterator[Link]:
    locked = lock[spec.name]
    if locked.cmd != spec.cmd:
        raise CheckFailed(f"{spec.name}: the cmd in {PIPELINE} is not the one in {LOCK}; run `dvc repro`")
    for recorded, declared in ((locked.outs, spec.outs), (locked.deps, spec.deps)):
        if unlike := sorted(recorded.keys() ^ set(declared)):
            raise CheckFailed(f"{spec.name}: {unlike[0]} is in only one of {PIPELINE} and {LOCK}; run `dvc repro`")
    for out, md5 in locked.outs.items():
        found = hashes.of(spec.name, out).md5
        if found != md5:
            raise CheckFailed(
                f"{spec.name}: output {changed_file(out, md5, lock)} was changed after the run; {_differ(md5, found)}"
            )
        yield Link(spec.name, "output", out, found)
    with _findings():
        record = read_record(spec.name)
    refuse_other_start_code(spec.name, record)
    yield from _verify_inputs(spec, lock, record, hashes)
    with _findings():
        _verify_params(spec, locked, record)
    yield Link(spec.name, "params", ", ".join(spec.params), "")
    if spec.name == "fetch":
        yield from _verify_sources()


def _verify_inputs(spec: StageSpec, lock: dict[str, Locked], record: dict[str, Any], hashes: _Hashes) -> Iterator[Link]:
    locked = lock[spec.name].deps
    if unlike := sorted(locked.keys() ^ record["deps"].keys()):
        raise CheckFailed(
            f"{spec.name}: {unlike[0]} is in only one of {LOCK} and {record_path(spec.name)}; run `dvc repro`"
        )
    for kind in (kind for kind in KINDS if str(lock_path(kind)) in locked):
        try:
            refuse_other_code(kind, locked_names(kind))
        except UserError as error:
            raise CheckFailed(f"{spec.name}: {error}") from None
    for path, md5 in locked.items():
        role = "code" if path in spec.code else "input"
        started, found = record["deps"][path], hashes.of(spec.name, path)
        if (found.md5, found.sha256) != (md5, started["sha256"]):
            with _findings():
                code = edited_code(record).get(path)
            yield from _accepted(_Difference(spec.name, path, md5, started, found, code), lock)
        yield Link(spec.name, role, path, found.md5)


class _Difference(NamedTuple):
    """A dependency that is not the same in the record of the start, in dvc.lock, and in the workspace."""

    stage: str
    path: str
    locked: str  # MD5
    started: dict[str, Any]
    found: Hashes
    code: EditedCode | None  # None for data


def _accepted(it: _Difference, lock: dict[str, Locked]) -> Iterator[Link]:
    """The links for the edits of code that dvc.lock records and that are proven to change nothing.

    Raises:
        CheckFailed: for every other difference.
    """
    start, proven = it.started["md5"], it.code is not None and it.code.is_accepted
    advice = f"; only {ONLY} differ, and `codex-ml accept-code` records that" if proven else ""
    if it.found.md5 == it.locked != start:
        if it.code and proven:
            yield from (Link(it.stage, "accepted", edit.path, edit.syntax) for edit in it.code.edits)
            return
        problems = [explained(edit) for edit in it.code.edits if edit.problem] if it.code else []
        named = problems[0] if problems else f"{changed_file(it.path, start, lock)} was changed"
    elif it.found.md5 == start != it.locked:  # put back
        named = f"{it.path} was changed"
    else:
        role = "code" if it.code else "input"
        named = changed_file(it.path, start, lock, it.started.get("files"))
        raise CheckFailed(
            f"{it.stage}: {role} {named} was changed after the run; {_differ(it.locked, it.found.md5)}{advice}"
        )
    raise CheckFailed(
        f"{it.stage}: {named}: it was edited while the stage ran, or later and recorded by `dvc commit`. The stage "
        f"started with {it.path} {start}, and {LOCK} has {it.locked}"
        + (advice or f"; run `dvc repro --force --single-item {it.stage}`")
    )


def _verify_params(spec: StageSpec, locked: Locked, record: dict[str, Any]) -> None:
    now = load_params().model_dump(mode="json")
    raw = read_yaml(Path(PARAMS))
    for name in spec.params:
        if record["params"].get(name) != now.get(name):
            raise CheckFailed(f"{spec.name}: {PARAMS} {name} differs from the recorded value; run `dvc repro`")
        if locked.params.get(name) != raw.get(name):
            raise CheckFailed(f"{spec.name}: {PARAMS} {name} differs from {LOCK}; run `dvc repro`")


def _verify_sources() -> Iterator[Link]:
    from codex_ml.fetch.pins import read_benchmark_pins, read_pins

    fetch, lock = load_params().fetch, Path("data/sample.lock")
    with _findings():
        pins = {pin.sha256: str(pin) for pin in read_pins(lock)} if fetch.sample else {}
        benchmarks = {pin.sha256: str(pin) for pin in read_benchmark_pins(lock)} if fetch.benchmarks else {}
    if fetch.sample:
        yield from _verify_pinned(Path("data/raw/sample"), pins, lock)
    if fetch.benchmarks:
        yield from _verify_pinned(SAMPLE_BENCHMARKS, benchmarks, lock)


def _verify_pinned(folder: Path, pins: dict[str, str], lock: Path) -> Iterator[Link]:
    """Compare the files of a folder with pins: SHA-256 -> what is pinned."""
    files = {file: hash_path(file) for file in sorted(folder.iterdir())}
    for file, found in files.items():
        if found.sha256 not in pins:
            raise CheckFailed(f"fetch: {file} has sha256 {found.sha256}, which {lock} does not pin")
        yield Link("fetch", "source", pins[found.sha256], found.sha256)
    if missing := sorted(pin for sha, pin in pins.items() if sha not in {f.sha256 for f in files.values()}):
        raise CheckFailed(f"fetch: {missing[0]} is pinned in {lock} but not in {folder}")


def _differ(locked: str, found: str) -> str:
    return f"{LOCK} has {locked}, found {found}"
