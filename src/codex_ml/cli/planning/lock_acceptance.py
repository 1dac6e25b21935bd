"""Record edits of comments, docstrings and layout in dvc.lock without a run, and prove that there are no others.

dvc.lock gets the hashes of the edited code. The records of the stages stay as they are: they name the files that ran.
The last step replaces dvc.lock as a whole, so a kill leaves the old file or the new one. Before it, DVC's run cache
gets an entry per stage, which without the new dvc.lock changes nothing.

Used by: `codex-ml accept-code`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_ml.cli.history.code_edits import CodeEdit, edited_code, record_of_run
from codex_ml.cli.history.first_difference import explained
from codex_ml.cli.planning.change_reasons import reasons
from codex_ml.cli.planning.repro_simulation import simulate
from codex_ml.core.errors import CheckFailed
from codex_ml.core.io import write_bytes
from codex_ml.core.pipeline import LOCK, Locked, load_lock

if TYPE_CHECKING:
    from dvc.repo import Repo

    from codex_ml.cli.planning.plan_schema import PlanReason


@dataclass(frozen=True)
class Acceptance:
    """What was recorded: the names of the stages, and the edited files."""

    stages: list[str]
    edits: list[CodeEdit]


def accept_edits(repo: Repo) -> Acceptance:
    """Prove that only comments, docstrings and layout changed since the stages ran; then write dvc.lock.

    Args:
        repo: locked.

    Raises:
        CheckFailed: for any other change; dvc.lock stays as it is.
    """
    lock = load_lock()
    proven: dict[str, dict[str, str]] = {}
    edits: dict[str, CodeEdit] = {}
    for fate in simulate(repo, []):
        why = [reason for reason in reasons(fate, lock) if reason.kind not in ("upstream", "never_ran")]
        for reason in why:
            if reason.kind != "comment":
                raise CheckFailed(_refusal(fate.name, reason, lock))
        record = record_of_run(fate.name, lock[fate.name]) if why else None
        for path, code in edited_code(record).items() if record else ():
            if path in {reason.name for reason in why}:
                if not code.is_accepted:
                    raise CheckFailed(f"{path} was edited meanwhile; run `codex-ml accept-code` again")
                proven.setdefault(fate.name, {})[path] = code.md5
                edits |= {edit.path: edit for edit in code.edits}
    if proven:
        write_bytes(LOCK, _with_new_hashes(repo, proven).encode())
    return Acceptance(list(proven), [edits[path] for path in sorted(edits)])


def _refusal(stage: str, reason: PlanReason, lock: dict[str, Locked]) -> str:
    said = reason.text
    if reason.kind == "code" and (record := record_of_run(stage, lock[stage])):
        code = edited_code(record).get(reason.name)
        said = next((explained(edit) for edit in code.edits if edit.problem), said) if code else said
    return (
        f"{stage}: {said}; accept-code records edits of comments, docstrings and layout only when nothing else has "
        "changed, so it did nothing. `codex-ml plan` shows all changes, and `dvc repro` runs the stages"
    )


def _with_new_hashes(repo: Repo, proven: dict[str, dict[str, str]]) -> str:
    """The text of dvc.lock with the present hashes of code, as DVC would write it; the run cache gets an entry, too.

    Args:
        proven: stage -> dependency -> MD5 of the code that the proof was about.

    Raises:
        CheckFailed: when a file changes meanwhile.
    """
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    document: Any = parse_yaml_for_update(LOCK.read_text(encoding="utf-8"), str(LOCK))
    for stage in repo.index.stages:
        paths = proven.get(stage.addressing, {}) if stage.path_in_repo == "dvc.yaml" else {}
        if not paths:
            continue
        for dep in stage.deps:
            if os.path.relpath(dep.fs_path, repo.root_dir) in paths:
                dep.save()
        now = {entry["path"]: entry for entry in to_single_stage_lockfile(stage)["deps"]}
        for entry in document["stages"][stage.addressing]["deps"]:
            path = entry["path"]
            if path in paths:
                entry.update(now[path])
                if entry["md5"] != paths[path]:
                    raise CheckFailed(f"{path} was edited meanwhile; run `codex-ml accept-code` again")
        repo.stage_cache.save(stage)  # as after a run, so that DVC can restore the outputs for this code
    text: str = dumps_yaml(document)
    return text
