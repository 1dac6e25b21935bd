"""The chain of hashes from a result back to the downloaded bytes, computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    role: str  # "output", "input", "code", "params" or "source"
    path: str
    md5: str


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
        started = record["deps"][path]
        if started["md5"] != md5:
            where = changed_file(path, started["md5"], lock, started.get("files"))
            raise CheckFailed(
                f"{spec.name}: {where} was edited while the stage ran; it started with {path} {started['md5']}, and "
                f"{LOCK} recorded {md5} at its end. Run `dvc repro --force --single-item {spec.name}`"
            )
        found = hashes.of(spec.name, path)
        if found.md5 != md5 or found.sha256 != started["sha256"]:
            where = changed_file(path, md5, lock, started.get("files"))
            raise CheckFailed(f"{spec.name}: {role} {where} was changed after the run; {_differ(md5, found.md5)}")
        yield Link(spec.name, role, path, found.md5)


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
