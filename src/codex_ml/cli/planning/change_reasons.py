"""Why a stage does not stay as it is: the parameter, the file, the output.

DVC says "params.yaml: train: modified" and "src/codex_ml/train: modified". dvc.lock, the records of the stages and
DVC's cache hold enough to name the key with both values, and the file inside the folder.

Used by: `codex-ml plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.cli.history.code_edits import ONLY, edited_code, record_of_run
from codex_ml.cli.history.listing import changed_file, listing_of
from codex_ml.cli.planning.plan_schema import PlanReason
from codex_ml.cli.planning.repro_simulation import Fate
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.pipeline import PARAMS, Locked
from codex_ml.core.record import CODE
from codex_ml.core.yaml import read_yaml

SHOWN = 3  # files of one folder
VALUE = 60  # characters of a value
OUT_SAYS = {"deleted": "is missing", "modified": "was changed after the run", "not in cache": "is not in DVC's cache"}
NOTHING = object()


def reasons(fate: Fate, lock: dict[str, Locked]) -> Iterator[PlanReason]:
    """The reasons for a fate, the decisive ones first."""
    locked = lock.get(fate.name)
    if locked is None and fate.action not in ("stay", "record") and not fate.missing:
        yield PlanReason(kind="never_ran", name=fate.name, text="dvc.lock has no run of it")
        return
    for path in fate.missing:
        yield _missing(path, fate)
    if fate.other_command:
        yield PlanReason(kind="command", name=fate.name, text="its cmd in dvc.yaml changed")
    if locked is not None:
        yield from _of_params(fate, locked)
        for path, said in fate.deps.items():
            if not (path == PARAMS and isinstance(said, dict)) and path not in fate.missing:
                yield _of_dep(path, fate.name, lock)
    for path, said in fate.outs.items():
        if path not in fate.missing:
            yield PlanReason(kind="out", name=path, text=f"output {path} {OUT_SAYS.get(said, said)}")
    for path, writer in fate.waits.items():
        if path in fate.outs:  # it may be in the cache again then
            continue
        yield PlanReason(kind="upstream", name=path, text=f"{writer} may write another {path}")


def _missing(path: str, fate: Fate) -> PlanReason:
    pointer = Path(f"{path}.dvc")
    if path in fate.outs and not pointer.is_file():
        how = f"`dvc checkout {fate.name}` restores it, `dvc unfreeze {fate.name}` lets it run"
        return PlanReason(kind="missing", name=path, text=f"{path} is missing, and {fate.name} is frozen; {how}")
    how = (
        f"`dvc pull {pointer}` fetches it" if pointer.is_file() else f"`git checkout {path}` brings a tracked one back"
    )
    return PlanReason(kind="missing", name=path, text=f"{path} is missing, and no stage writes it; {how}")


def _of_params(fate: Fate, locked: Locked) -> Iterator[PlanReason]:
    """One reason per key whose value differs from the recorded one."""
    sections = fate.deps.get(PARAMS)
    if not isinstance(sections, dict):  # a text where the whole file is a dependency
        return
    now = read_yaml(Path(PARAMS))
    for section in sections:
        for key, old, new in differences(section, locked.params.get(section, NOTHING), now.get(section, NOTHING)):
            text = f"{key} {_shown(old)} -> {_shown(new)}"
            old, new = (None if value is NOTHING else value for value in (old, new))
            yield PlanReason(kind="param", name=key, text=text, old=old, new=new)


def differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of each leaf that differs; a list counts as one value.

    >>> [key for key, *_ in differences("train", {"lr": 1, "ema": 0}, {"lr": 2, "ema": 0, "beta": 3})]
    ['train.beta', 'train.lr']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}, key=str):
            yield from differences(f"{key}.{name}", old.get(name, NOTHING), new.get(name, NOTHING))
    elif old is NOTHING or new is NOTHING or old != new or type(old) is not type(new):
        yield key, old, new


def _shown(value: Any) -> str:
    text = "(absent)" if value is NOTHING else "(not set)" if value is None else str(value).replace("\n", " ")
    return text if len(text) <= VALUE else f"{text[:VALUE]}..."


def _of_dep(path: str, stage: str, lock: dict[str, Locked]) -> PlanReason:
    md5 = lock[stage].deps.get(path)
    if md5 is None:
        return PlanReason(
            kind="code" if path.startswith(CODE) else "data", name=path, text=f"{path} is a new dependency"
        )
    if path.startswith(CODE):
        return _of_code(path, md5, stage, lock)
    return PlanReason(kind="data", name=path, text=f"{_some(_changed_inside(path, md5, lock))} changed")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" (and {len(names) - SHOWN} more)" if len(names) > SHOWN else "")


def _of_code(path: str, md5: str, stage: str, lock: dict[str, Locked]) -> PlanReason:
    """The reason for changed code: what differs from the files that ran, according to the record of the run."""
    try:
        record = record_of_run(stage, lock[stage])
    except UserError:  # damaged: `verify` says so
        record = None
    code = edited_code(record).get(path) if record else None
    if code is None:
        return PlanReason(kind="code", name=path, text=f"{changed_file(path, md5, lock)} changed")
    if code.is_accepted:
        names = _some([edit.path for edit in code.edits])
        text = f"{names} changed, only in {ONLY}" if names else f"{path} is again the code that ran"
        return PlanReason(kind="comment", name=path, text=text)
    marks = {"was added": " (added)", "was removed": " (missing)"}
    names = _some([f"{edit.path}{marks.get(edit.problem, '')}" for edit in code.edits if edit.problem])
    return PlanReason(kind="code", name=path, text=f"{names} changed")


def _changed_inside(path: str, md5: str, lock: dict[str, Locked]) -> list[str]:
    """The files of a dependency that changed since it had the hash `md5`; the dependency itself where none is known."""
    if not Path(path).is_dir():
        return [path]
    old = listing_of(md5)
    if old is None:
        return [changed_file(path, md5, lock)]
    now: dict[str, str] = {}
    hash_path(Path(path), listing=now)
    marks = {
        name: "" if name in old and name in now else " (added)" if name in now else " (missing)" for name in old | now
    }
    changed = [f"{path}/{name}{marks[name]}" for name in sorted(marks) if old.get(name) != now.get(name)]
    return changed or [path]
