"""Follow `dvc repro` through the stages without running one.

`dvc repro --dry` compares each stage with the workspace as it is, and looks into the run cache with the hashes of the
last run. The real command sees what earlier stages left. So this module carries forward what is known: the outputs of
a stage that stays or is restored have known hashes, those of a stage that runs do not.

    split is restored -> data/splits gets the hash of the run cache -> pack compares that hash with dvc.lock
    train runs        -> models/model is unknown                    -> evaluate waits: it runs if the model changes

All comparisons with the workspace and the run cache are DVC's own (dvc/stage/__init__.py, dvc/stage/cache.py of DVC
3.67). Used by: `codex-ml plan`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.cli.history.listing import listing_of
from codex_ml.cli.planning.plan_schema import Action
from codex_ml.core.hashing import hash_path

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage


@dataclass(frozen=True)
class Fate:
    """What `dvc repro` does with a stage.

    Attributes:
        name: as DVC addresses it.
        action: see `StagePlan`.
        in_dry_run: whether `dvc repro --dry` names it.
        deps: path -> what DVC says of a dependency that changed; of params.yaml a mapping section -> what.
        outs: path -> what DVC says of an output that changed.
        waits: dep -> the stage whose run decides about it.
        other_command: whether `cmd` changed.
        restored: path -> MD5 of the outputs that the run cache has.
        missing: dependencies that are missing and that no earlier stage writes.
    """

    name: str
    action: Action
    in_dry_run: bool
    deps: dict[str, Any]
    outs: dict[str, str]
    waits: dict[str, str]
    other_command: bool = False
    restored: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def simulate(repo: Repo, targets: list[str]) -> Iterator[Fate]:
    """The fates of the stages that `dvc repro TARGETS` visits, in its order.

    Args:
        targets: names of stages in dvc.yaml; [] for all.

    Raises:
        DvcException: what `dvc repro` raises too, such as for a circle.
    """
    from dvc.repo.reproduce import get_active_graph, plan_repro

    # DVC's own `collect_stages` would parse dvc.yaml and dvc.lock a second time
    ours = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"]
    stages = [stage for stage in ours if not targets or stage.addressing in targets]
    walk = _Walk(repo)
    for stage in plan_repro(get_active_graph(repo.index.graph), stages):
        yield walk.visit(stage)


class _Walk:
    """What the stages visited so far leave.

    Attributes:
        known: path -> MD5 of each output that differs from the workspace in a known way.
        unknown: path of an output -> the stage that will or may write it.
        rewritten: recorded MD5 of such an output -> that stage, which puts it into the cache if it writes it again.
    """

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.known: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.rewritten: dict[str, str] = {}

    def visit(self, stage: Stage) -> Fate:
        """Decide about one stage and remember what it leaves."""
        fate = self._fate(stage)
        for out in stage.outs:
            path = self._path(out)
            if fate.action in ("run", "maybe", "fail"):
                self.unknown[path] = fate.name
                self.rewritten[out.hash_info.value or ""] = fate.name
            elif fate.action == "restore":
                self.known[path] = fate.restored[path]
        return fate

    def _fate(self, stage: Stage) -> Fate:
        outs = {self._path(out): text for out in stage.outs for text in out.status().values()}
        if stage.cmd is None or stage.frozen:
            return _unrun(stage, outs)
        now = {self._path(dep): self._said(dep) for dep in stage.deps}
        waits = {path: writer for path in now if (writer := self._writer(path))}
        twins = {self._path(out): writer for out in stage.outs if (writer := self._writer_of_twin(out, outs))}
        future = {path: self._future(path) for path in now if path not in waits}
        deps = {}
        for dep in stage.deps:
            path = self._path(dep)
            if (md5 := future.get(path)) is not None:
                if md5 != dep.hash_info.value:
                    deps[path] = "modified"
            elif path not in waits and now[path]:
                deps[path] = now[path]
        other_command = stage.changed_stage()
        missing = tuple(path for path, said in deps.items() if said == "deleted")
        changed = bool(deps or outs.keys() - twins or other_command or stage.always_changed)
        waits |= twins
        told = (stage.addressing, any(now.values()) or bool(outs) or other_command or stage.always_changed)
        if missing:
            return Fate(told[0], "fail", told[1], deps, outs, waits, other_command, missing=missing)
        if not changed or waits:
            action: Action = "run" if changed else "maybe" if waits else "stay"
            return Fate(told[0], action, told[1], deps, outs, waits, other_command)
        restored = self._restored(stage, future, unchanged=not (deps or other_command))
        return Fate(told[0], "restore" if restored else "run", told[1], deps, outs, waits, other_command, restored)

    def _path(self, item: Output) -> str:
        return Path(os.path.relpath(item.fs_path, self.repo.root_dir)).as_posix()

    def _said(self, dep: Output) -> Any:
        """DVC's word about a dependency in the workspace; empty where it is the recorded one."""
        return next(iter(dep.status().values()), "")

    def _writer(self, path: str) -> str:
        """The stage whose run decides about a path; "" where none does."""
        return next((stage for out, stage in self.unknown.items() if _overlap(path, out)), "")

    def _writer_of_twin(self, out: Output, said: dict[str, str]) -> str:
        """The stage that may put an output back into the cache, because it may write the same bytes; "" for none."""
        lost = said.get(self._path(out)) == "not in cache"
        return self.rewritten.get(out.hash_info.value or "", "") if lost else ""

    def _future(self, path: str) -> str | None:
        """The MD5 that a path has after the stages visited so far; None where it stays as it is in the workspace."""
        touching = {out: md5 for out, md5 in self.known.items() if _overlap(path, out)}
        if not touching:
            return None
        if path in touching:
            return touching[path]
        files: dict[str, str] = {}  # of all that lies below `path`: relative name -> MD5
        if Path(path).is_dir():
            hash_path(Path(path), listing=files)
        for out, md5 in touching.items():
            inside = {f"{out}/{name}": digest for name, digest in (listing_of(md5) or {}).items()} or {out: md5}
            if path in inside:
                return inside[path]
            files = {name: digest for name, digest in files.items() if not _overlap(out, f"{path}/{name}")}
            files |= {name[len(path) + 1 :]: digest for name, digest in inside.items() if name.startswith(f"{path}/")}
        listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"

    def _restored(self, stage: Stage, future: dict[str, str | None], *, unchanged: bool) -> dict[str, str]:
        """What DVC would check out instead of running the stage: path -> MD5 of each output; empty where nothing.

        This is `StageCache.restore` without its effects: the hashes of the deps are those that the real command finds.
        """
        from dvc.stage.serialize import to_single_stage_lockfile

        cache = self.repo.stage_cache
        local = all(item.protocol == "local" and item.def_path for item in (*stage.deps, *stage.outs))
        inside = all(out.is_in_repo and not out.persist for out in stage.outs)
        if stage.always_changed or not (local and inside and stage.deps and stage.outs):
            return {}
        if unchanged and all(out.hash_info for out in stage.outs):
            entry: Any = to_single_stage_lockfile(stage)
        else:
            for dep in stage.deps:
                _set_hash(dep, future.get(self._path(dep)))
            entry = _newest_entry(cache, to_single_stage_lockfile(stage))
        if not entry:
            return {}
        made = cache._create_stage(entry, wdir=stage.wdir)
        return {self._path(out): out.hash_info.value for out in made.outs} if made.outs_cached() else {}


def _unrun(stage: Stage, outs: dict[str, str]) -> Fate:
    """The fate of what runs no command: data that `dvc add` tracks, and stages that `dvc freeze` froze."""
    gone = tuple(path for path, said in outs.items() if said == "deleted")
    changed = bool(outs) or stage.changed_stage()
    action: Action = "fail" if gone else "record" if changed else "stay"
    return Fate(stage.addressing, action, changed, {}, outs, {}, stage.changed_stage(), missing=gone)


def _set_hash(dep: Output, md5: str | None) -> None:
    """Give a dependency, in memory only, the hash that it has when the stage starts."""
    from dvc.dependency.param import ParamsDependency
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    if isinstance(dep, ParamsDependency):
        dep.hash_info = dep.get_hash()
    elif md5 is None:
        dep.meta, dep.hash_info = dep._get_hash_meta()
    else:
        dep.meta, dep.hash_info = Meta(), HashInfo(dep.hash_name, md5)  # the old meta would carry the old hash


def _newest_entry(cache: Any, lock: dict[str, Any]) -> dict[str, Any] | None:
    """The newest run on these deps and params, as `StageCache._load` finds it."""
    from dvc.stage.cache import _get_cache_hash

    key = _get_cache_hash(lock, key=True)
    folder = Path(cache._get_cache_dir(key))
    entries = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True) if folder.is_dir() else []
    found: dict[str, Any] | None = cache._load_cache(key, entries[0].name) if entries else None
    return found


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)
