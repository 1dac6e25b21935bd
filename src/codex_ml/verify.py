"""`codex-ml verify` and `codex-ml lineage`: the chain of hashes from a result back to the downloaded bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckFailed, UserError
from codex_ml.io import Hashes, hash_path, parse_json, read_json
from codex_ml.lineage import record_path
from codex_ml.params import load_params
from codex_ml.pipeline import (
    LOCK,
    PIPELINE,
    StageSpec,
    load_lock,
    load_pipeline,
    parse_lock,
    parse_pipeline,
    producers_of,
)
from codex_ml.yaml import parse_yaml


@dataclass(frozen=True)
class Link:
    """One hash of the chain that was recomputed and agreed."""

    stage: str
    role: str  # "output", "input", "code", "params" or "source"
    path: str
    md5: str


def chain_of(path: str, stages: dict[str, StageSpec]) -> list[StageSpec]:
    """The stages that `path` rests on, from the one that wrote it back to the sources.

    Raises:
        UserError: when no stage writes `path`.
    """
    todo = producers_of(path, stages)
    if not todo:
        raise UserError(
            f"{path} is no output of the pipeline; outputs: {', '.join(o for s in stages.values() for o in s.outs)}"
        )
    chain: list[StageSpec] = []
    while todo:
        spec = todo.pop(0)
        if spec not in chain:
            chain.append(spec)
            todo += [producer for dep in spec.data for producer in producers_of(dep, stages)]
    return sorted(chain, key=list(stages.values()).index, reverse=True)


def verify(path: str | None = None) -> Iterator[Link]:
    """Recompute every hash from `path` (all results, when None) back to data/sample.lock; yields the links that hold.

    Raises:
        CheckFailed: at the first broken link, naming it.
        UserError: when the pipeline has not run.
    """
    stages, lock, hashes = load_pipeline(), load_lock(), _Hashes()
    for spec in chain_of(path, stages) if path else reversed(list(stages.values())):
        if spec.name not in lock:
            raise UserError(f"{LOCK} does not know stage {spec.name}; run `dvc repro`")
        yield from _verify_stage(spec, lock[spec.name], hashes)


class _Hashes:
    """Each path is hashed once, however many stages read it."""

    def __init__(self) -> None:
        self._known: dict[str, Hashes] = {}

    def of(self, stage: str, path: str) -> Hashes:
        if path not in self._known:
            if not Path(path).exists():
                raise CheckFailed(f"{stage}: {path} is missing; `dvc repro` or `dvc checkout` brings it back")
            self._known[path] = hash_path(Path(path))
        return self._known[path]


def _verify_stage(spec: StageSpec, locked: dict[str, Any], hashes: _Hashes) -> Iterator[Link]:
    if locked.get("cmd") != spec.cmd:
        raise CheckFailed(f"{spec.name}: the cmd in {PIPELINE} is not the one in {LOCK}; run `dvc repro`")
    for kind, declared in (("outs", spec.outs), ("deps", spec.deps)):
        if unlike := sorted({entry["path"] for entry in locked.get(kind, [])} ^ set(declared)):
            raise CheckFailed(f"{spec.name}: {unlike[0]} is in only one of {PIPELINE} and {LOCK}; run `dvc repro`")
    for out in locked.get("outs", []):
        found = hashes.of(spec.name, out["path"])
        if found.md5 != out["md5"]:
            raise CheckFailed(
                f"{spec.name}: output {_changed_file(out['path'])} was changed after the run; {_differ(out, found.md5)}"
            )
        yield Link(spec.name, "output", out["path"], found.md5)
    record = read_json(record_path(spec.name))
    yield from _verify_inputs(spec, locked, record, hashes)
    _verify_params(spec, locked, record)
    yield Link(spec.name, "params", ", ".join(spec.params), "")
    if spec.name == "fetch":
        yield from _verify_sources(hashes)


def _verify_inputs(spec: StageSpec, locked: dict[str, Any], record: dict[str, Any], hashes: _Hashes) -> Iterator[Link]:
    in_lock = {dep["path"]: dep for dep in locked.get("deps", [])}
    if unlike := sorted(in_lock.keys() ^ record["deps"].keys()):
        raise CheckFailed(
            f"{spec.name}: {unlike[0]} is in only one of {LOCK} and {record_path(spec.name)}; run `dvc repro`"
        )
    for path, dep in in_lock.items():
        role = "code" if path in spec.code else "input"
        started = record["deps"][path]
        if started["md5"] != dep["md5"]:
            raise CheckFailed(
                f"{spec.name}: {path} was edited while the stage ran; it started with {started['md5']}, {LOCK} "
                f"recorded {dep['md5']} at its end. Run `dvc repro --force {spec.name}`"
            )
        found = hashes.of(spec.name, path)
        if found.md5 != dep["md5"] or found.sha256 != started["sha256"]:
            raise CheckFailed(
                f"{spec.name}: {role} {_changed_file(path)} was changed after the run; {_differ(dep, found.md5)}"
            )
        yield Link(spec.name, role, path, found.md5)


def _verify_params(spec: StageSpec, locked: dict[str, Any], record: dict[str, Any]) -> None:
    now = load_params().model_dump(mode="json")
    raw = parse_yaml(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml")
    for name in spec.params:
        if record["params"].get(name) != now[name]:
            raise CheckFailed(f"{spec.name}: params.yaml {name} differs from the recorded value; run `dvc repro`")
        if locked.get("params", {}).get("params.yaml", {}).get(name) != raw.get(name):
            raise CheckFailed(f"{spec.name}: params.yaml {name} differs from {LOCK}; run `dvc repro`")


def _verify_sources(hashes: _Hashes) -> Iterator[Link]:
    from codex_ml.data.fetch import read_pins

    if not load_params().fetch.sample:
        return
    sample = Path("data/raw/sample")
    files = {wheel: hash_path(wheel) for wheel in sorted(sample.iterdir())}
    pins = {pin.sha256: pin for pin in read_pins(Path("data/sample.lock"))}
    for wheel, found in files.items():
        if found.sha256 not in pins:
            raise CheckFailed(f"fetch: {wheel} has sha256 {found.sha256}, which data/sample.lock does not pin")
        yield Link("fetch", "source", str(pins[found.sha256]), found.sha256)
    if missing := sorted(str(p) for sha, p in pins.items() if sha not in {f.sha256 for f in files.values()}):
        raise CheckFailed(f"fetch: {missing[0]} is pinned in data/sample.lock but not in {sample}")


def _differ(locked: dict[str, Any], found: str) -> str:
    return f"{LOCK} has {locked['md5']}, found {found}"


def _changed_file(path: str) -> str:
    """Name the file inside a folder that differs from DVC's cache, where the cache can tell."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    listing = _cached_listing(path)
    if listing is None:
        return path
    now = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    for entry in listing:
        file = now.pop(entry["relpath"], None)
        if file is None:
            return f"{path}/{entry['relpath']} (missing)"
        if hash_path(file).md5 != entry["md5"]:
            return f"{path}/{entry['relpath']}"
    return f"{path}/{next(iter(now))} (added)" if now else path


def _cached_listing(path: str) -> list[dict[str, str]] | None:
    for stage in load_lock().values():
        for entry in [*stage.get("outs", []), *stage.get("deps", [])]:
            if entry["path"] == path and entry["md5"].endswith(".dir"):
                cached = Path(".dvc/cache/files/md5", entry["md5"][:2], entry["md5"][2:])
                if cached.is_file():
                    listing: list[dict[str, str]] = parse_json(cached.read_bytes())
                    return listing
    return None


def lineage(path: str, revision: str | None = None) -> list[dict[str, Any]]:
    """The chain of `path` as dvc.lock of a Git revision tells it (of the workspace, when None), from the result back.

    Returns:
        one mapping a stage: stage, outs, deps, params, and the record of its start when Git has it.

    Raises:
        UserError: for an unknown path or revision.
    """
    read = (lambda name: _show(revision, name)) if revision else _read
    stages = parse_pipeline(parse_yaml(read(PIPELINE), str(PIPELINE)), str(PIPELINE))
    lock = parse_lock(read(LOCK))
    result = []
    for spec in chain_of(path, stages):
        locked = lock.get(spec.name, {})
        try:
            record = parse_json(read(record_path(spec.name)))
        except UserError:
            record = None
        result.append(
            {
                "stage": spec.name,
                "desc": spec.desc,
                "outs": {out["path"]: out["md5"] for out in locked.get("outs", [])},
                "deps": {dep["path"]: dep["md5"] for dep in locked.get("deps", [])},
                "params": locked.get("params", {}).get("params.yaml", {}),
                "record": record,
            }
        )
    return result


def _read(name: Path) -> str:
    try:
        return name.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{name} is missing; run `make repro` first") from None


def _show(revision: str, name: Path) -> str:
    if revision.startswith("-"):
        raise UserError(f"{revision!r} is no Git revision")
    done = subprocess.run(["git", "show", f"{revision}:./{name.as_posix()}"], capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(f"{name} at {revision}: {reason[-1] if reason else 'not found'}")
    return done.stdout.decode("utf-8")
