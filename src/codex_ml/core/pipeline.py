"""Read dvc.yaml and dvc.lock into plain data, and find the stages that write a path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError
from codex_ml.core.repository_root import find_top
from codex_ml.core.yaml import parse_yaml, read_text, read_yaml

PIPELINE, LOCK, PARAMS = Path("dvc.yaml"), Path("dvc.lock"), "params.yaml"
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")  # .dir: of a folder
# DVC's run cache has each run, so a lost lock costs no computation.
MEND_LOCK = f"bring back the committed one with `git checkout {LOCK}`, or delete it; then run `dvc repro`"
ROOTS = ("src/codex_ml/__init__.py",)  # the version and the check of Python; see core.planted_files


@dataclass(frozen=True)
class StageSpec:
    """One stage of dvc.yaml. Paths are relative to the repository, with forward slashes."""

    name: str
    cmd: str
    desc: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    uncached: frozenset[str]  # outs that lie in Git instead of DVC's cache
    plain_uncached: frozenset[str] = frozenset()  # the uncached outs that are neither metric nor plot

    @property
    def script(self) -> str:
        return f"stages/{self.name}.py"

    def reads(self, path: str) -> bool:
        """Whether a path is a dependency, or lies in one."""
        here = Path(path)
        return here in self._deps or not self._deps.isdisjoint(here.parents)

    @cached_property
    def _deps(self) -> frozenset[Path]:
        return frozenset(map(Path, self.deps))

    @cached_property
    def code(self) -> tuple[str, ...]:
        """The deps that are code: the script and folders of the library."""
        return tuple(dep for dep in self.deps if Path(dep).parts[0] in ("src", "stages"))

    @cached_property
    def data(self) -> tuple[str, ...]:
        return tuple(dep for dep in self.deps if dep not in self.code)


def load_pipeline(path: Path = PIPELINE) -> dict[str, StageSpec]:
    """Stages of dvc.yaml by name, in the order of the file.

    Raises:
        UserError: when the file is missing or has another structure.
    """
    return parse_pipeline(read_yaml(path), str(path))


def parse_pipeline(document: Any, name: str) -> dict[str, StageSpec]:
    """See `load_pipeline`; `name` is for messages."""
    return {stage: _spec(stage, body, name) for stage, body in _stages(document, name).items()}


def _stages(document: Any, name: str) -> dict[str, Any]:
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict) or not stages:
        raise UserError(f"{name}: expected a mapping `stages:`")
    if odd := [stage for stage in stages if not isinstance(stage, str)]:
        raise UserError(f"{name}: the name of a stage must be a string, found {odd[0]!r}")
    return stages


def _spec(stage: str, body: Any, name: str) -> StageSpec:
    if not isinstance(body, dict) or not isinstance(body.get("cmd"), str):
        raise UserError(f"{name}: stage {stage} needs a `cmd` that is one string")
    outs = {
        kind: [_path_and_flags(out, f"{name}: {kind} of stage {stage}") for out in _list(body, kind, name, stage)]
        for kind in ("outs", "metrics", "plots")
    }
    uncached = {
        kind: frozenset(path for path, flags in items if flags.get("cache") is False) for kind, items in outs.items()
    }
    for kind in ("deps", "params"):
        if odd := [item for item in _list(body, kind, name, stage) if not isinstance(item, str) or not item]:
            raise UserError(f"{name}: {kind} of stage {stage}: expected strings, found {odd[0]!r}")
    return StageSpec(
        name=stage,
        cmd=body["cmd"],
        desc=str(body.get("desc") or ""),
        deps=tuple(body.get("deps") or ()),
        params=tuple(body.get("params") or ()),
        outs=tuple(path for items in outs.values() for path, _ in items),
        uncached=frozenset().union(*uncached.values()),
        plain_uncached=uncached["outs"],
    )


def _list(body: dict[str, Any], kind: str, name: str, stage: str) -> list[Any]:
    value = [] if body.get(kind) is None else body[kind]
    if not isinstance(value, list):
        raise UserError(f"{name}: {kind} of stage {stage}: expected a list, found {value!r}")
    return value


def _path_and_flags(out: Any, where: str) -> tuple[str, dict[str, Any]]:
    path, flags = next(iter(out.items())) if isinstance(out, dict) and len(out) == 1 else (out, None)
    if not isinstance(path, str) or not path or not isinstance(flags, dict | None):
        raise UserError(f"{where}: expected a path, or a path with a mapping, found {out!r}")
    return path, flags or {}


@dataclass(frozen=True)
class Locked:
    """One stage of dvc.lock, as DVC recorded it when its command ended."""

    cmd: str
    deps: dict[str, str]  # path -> MD5, which ends in .dir for a folder
    outs: dict[str, str]
    params: dict[str, Any]  # of params.yaml


def load_lock(path: Path = LOCK) -> dict[str, Locked]:
    """The stages of dvc.lock by name.

    Raises:
        UserError: when the file is missing, is not YAML, or is not what DVC writes.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run `make repro` first")
    try:
        text = read_text(path)
    except UserError as error:  # not UTF-8, or no file
        raise UserError(f"{error}; {MEND_LOCK}") from None
    return parse_lock(text)


def parse_lock(text: str) -> dict[str, Locked]:
    """See `load_lock`."""
    refuse_conflict(text, str(LOCK))
    try:
        document = parse_yaml(text, str(LOCK))
    except UserError as error:
        raise UserError(f"{error}; {MEND_LOCK}") from None
    stages = document.get("stages", {}) if isinstance(document, dict) else None
    if not isinstance(stages, dict) or document.get("schema") != "2.0":
        raise UserError(f"{LOCK}: expected `schema: '2.0'` and a mapping `stages:`; {MEND_LOCK}")
    return {str(stage): _locked(body, f"{LOCK}: stage {stage}") for stage, body in stages.items()}


def _locked(body: Any, where: str) -> Locked:
    if not isinstance(body, dict) or not isinstance(body.get("cmd"), str):
        raise UserError(f"{where} has no `cmd`; {MEND_LOCK}")
    files = body.get("params", {})
    params = files.get(PARAMS, {}) if isinstance(files, dict) else None
    if not isinstance(params, dict):
        raise UserError(f"{where}: `params` do not have the form that DVC writes; {MEND_LOCK}")
    return Locked(body["cmd"], _digests(body, "deps", where), _digests(body, "outs", where), params)


def _digests(body: dict[str, Any], kind: str, where: str) -> dict[str, str]:
    entries = body.get(kind, [])
    for entry in entries if isinstance(entries, list) else [entries]:
        named = isinstance(entry, dict) and isinstance(entry.get("path"), str)
        sized = named and all(isinstance(entry.get(key, 0), int) for key in ("size", "nfiles"))
        if not sized or not MD5.fullmatch(str(entry.get("md5"))):
            raise UserError(
                f"{where}: expected `{kind}` to be a list of `path`, `md5` and `size`, as DVC writes it; {MEND_LOCK}"
            )
    return {entry["path"]: entry["md5"] for entry in entries}


def producers_of(path: str, stages: dict[str, StageSpec]) -> list[StageSpec]:
    """The stages with an output that is `path`, holds it, or lies inside it."""
    wanted = Path(path)

    def touches(out: Path) -> bool:
        return out.is_relative_to(wanted) or wanted.is_relative_to(out)

    return [spec for spec in stages.values() if any(touches(Path(out)) for out in spec.outs)]


def remedy(path: Path, otherwise: str) -> str:
    """The end of a message about a missing or damaged file: the stage that writes it.

    Args:
        path: relative to the current folder.
        otherwise: what to do about a file that no stage writes, such as a file of the user's own tokenizer.
    """
    top = find_top(Path.cwd())
    if top is None:
        return otherwise
    place = os.path.relpath(path.absolute(), top)
    try:
        stages = load_pipeline(top / PIPELINE)
    except UserError:  # this message is not about a mistake in dvc.yaml
        return otherwise
    writer = next((s for s in stages.values() if any(Path(place).is_relative_to(out) for out in s.outs)), None)
    return f"`dvc repro {writer.name}` makes it" if writer else otherwise


def chain_of(path: str, stages: dict[str, StageSpec]) -> list[StageSpec]:
    """The stages that `path` depends on, from the one that wrote it back to the first.

    Raises:
        UserError: when no stage writes `path`.
    """
    todo = producers_of(path, stages)
    if not todo:
        raise UserError(
            f"{path} is not an output of the pipeline; outputs: {', '.join(o for s in stages.values() for o in s.outs)}"
        )
    chain: list[StageSpec] = []
    while todo:
        spec = todo.pop(0)
        if spec not in chain:
            chain.append(spec)
            todo += [producer for dep in spec.data for producer in producers_of(dep, stages)]
    return sorted(chain, key=list(stages.values()).index, reverse=True)
