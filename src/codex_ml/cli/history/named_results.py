"""Find the result that a name stands for: a result folder, the workspace, a Git revision or an experiment of DVC.

The files of a revision are read from Git and from DVC's cache, without a checkout. Used by: `codex-ml compare`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codex_ml.cli.history.git_commands import files_of_commit
from codex_ml.cli.history.listing import cached_file, listing_of
from codex_ml.cli.history.revisions import commits_named
from codex_ml.cli.history.stage_chain import chain_at
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.io import read_json, write_bytes
from codex_ml.core.pipeline import LOCK, parse_lock
from codex_ml.core.record import parse_record
from codex_ml.evaluate.result_folder import RECORD, ResultFolder, result_at
from codex_ml.inference.comparison_files import ComparedSide
from codex_ml.inference.evaluate_files import DETAILS, RESULTS

WORKSPACE, STAGE = "workspace", "evaluate"
REPORTS = Path("reports/evaluate")
MODEL_FILES = ("config.json", "adapter_config.json")
Measure = Callable[[Path, Path], None]  # (model, folder for its result)


@contextmanager
def named_results(
    names: Sequence[str], here: Path, top: Path | None, measure: Measure | None = None
) -> Iterator[list[ResultFolder]]:
    """Open the results that the names stand for, in their order; messages name files as the user knows them.

    Args:
        here: where the user typed the names.
        top: the top folder of the repository, which is the current folder; None outside a repository.
        measure: evaluates a model that a name stands for; None: a model is refused.

    Raises:
        UserError: when a name stands for nothing, for two things, or for a result whose files are not here.
    """
    with tempfile.TemporaryDirectory(prefix="codex-ml-compare-") as scratch:
        folders = [Path(scratch, f"{number:04}") for number in range(len(names))]
        try:
            yield [_named(name, here, top, folder, measure) for name, folder in zip(names, folders, strict=True)]
        except UserError as error:
            said = str(error)
            for name, folder in zip(names, folders, strict=True):
                said = said.replace(str(folder), f"{name}:{REPORTS}")
            raise UserError(said.replace("\n", "\\n")) from None  # names and ids are data


def _named(name: str, here: Path, top: Path | None, scratch: Path, measure: Measure | None) -> ResultFolder:
    if not name:
        raise UserError("the name of a result is empty; name a result folder, a Git revision or an experiment")
    if name == WORKSPACE and top:
        return _with_chain(ResultFolder(ComparedSide(name=name, kind="workspace"), REPORTS), None)
    path = Path(os.path.relpath(here / name))
    is_folder = (path / DETAILS).exists()
    revisions = list(_revisions(name)) if top else []
    if len(revisions) + is_folder > 1:
        found = [f"the folder ./{name}"] * is_folder + [f"the {side.kind} {side.commit[:12]}" for side in revisions]
        raise UserError(f"{name} stands for {' and '.join(found)}; write ./{name} for a folder, else the commit")
    if is_folder:
        if top and path.resolve() == REPORTS.resolve():
            return _with_chain(ResultFolder(ComparedSide(name=name, kind="folder"), path), None)
        return result_at(name, path)
    if revisions:
        return _revision(revisions[0], scratch)
    if measure and is_model(path):
        measure(path, scratch)
        return ResultFolder(ComparedSide(name=name, kind="model"), scratch)
    raise UserError(_stands_for_nothing(name, path, top))


def is_model(path: Path) -> bool:
    """Whether a path looks like a folder of a model, or a GGUF file."""
    return path.suffix == ".gguf" or any((path / file).is_file() for file in MODEL_FILES)


def _stands_for_nothing(name: str, path: Path, top: Path | None) -> str:
    if is_model(path):
        return f"{name} is a model, not a result; name documents with --data to evaluate it on them"
    if path.is_dir():
        return f"{name} has no {DETAILS}, so it is not a result folder; name a copy of {REPORTS}"
    if path.exists():
        return f"{name} is a file; name a result folder, such as a copy of {REPORTS}"
    if not top:
        return f"{name} is not a folder, and there is no repository here for Git revisions; name a result folder"
    return f"{name} is not a folder, a Git revision or an experiment; `dvc exp list --all-commits` lists experiments"


def _revisions(name: str) -> Iterator[ComparedSide]:
    return (ComparedSide(name=name, kind=named.kind, commit=named.commit) for named in commits_named(name))


def _revision(side: ComparedSide, scratch: Path) -> ResultFolder:
    """Put the files of a revision's result into a new folder, as links into DVC's cache.

    Raises:
        UserError: when the revision has no result, or its files are not here.
    """
    files = files_of_commit(side.commit, str(LOCK), str(REPORTS))
    text = files.read(str(LOCK))
    if text is None:
        raise UserError(f"{side.name} has no {LOCK}, so nothing was evaluated there")
    lock = parse_lock(text.decode("utf-8", "replace"))
    if STAGE not in lock:
        raise UserError(f"{LOCK} of {side.name} has no stage {STAGE}, so nothing was evaluated there")
    outs = lock[STAGE].outs
    if str(REPORTS / RESULTS) not in outs:
        raise UserError(f"{side.name} has no {REPORTS / RESULTS}; `dvc repro {STAGE}` in a checkout of it makes them")
    wanted = {name: outs.get(str(REPORTS / name), "") for name in (DETAILS, RECORD)}
    listing = listing_of(outs[str(REPORTS / RESULTS)])
    if listing is None:
        raise UserError(_not_here(side, str(REPORTS / RESULTS)))
    tables = [name for name in listing if name.endswith(".parquet") and "/" not in name]
    wanted |= {f"{RESULTS}/{name}": listing[name] for name in tables}
    for name, md5 in wanted.items():
        path = str(REPORTS / name)
        if (data := files.read(path)) is not None:
            write_bytes(scratch / name, data)
            continue
        source = cached_file(md5)
        if source is None and name == RECORD:
            continue  # `_with_chain` says so
        if source is None:
            raise UserError(_not_here(side, path))
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).symlink_to(source)
    return _with_chain(ResultFolder(side, scratch), side.commit)


def _not_here(side: ComparedSide, path: str) -> str:
    fetch = "dvc fetch --all-commits" if side.kind == "revision" else "dvc exp pull REMOTE"
    name = path if side.kind == "revision" else side.name
    return f"{path} of {side.name} is not in DVC's cache; `{fetch} {name}` brings it there"


def _with_chain(result: ResultFolder, revision: str | None) -> ResultFolder:
    """Add the records of all stages that led to the result."""
    try:
        steps = chain_at(str(REPORTS / DETAILS), revision)
    except (CheckFailed, UserError) as error:
        own = result.folder / RECORD
        records = {STAGE: parse_record(read_json(own), str(own))} if own.is_file() else {}
        return _noted(result, f"of {result.name}, only the inputs of {STAGE} are compared: {error}", records)
    records = {step.spec.name: step.record for step in steps if step.record is not None}
    unknown = [step.spec.name for step in reversed(steps) if step.record is None]
    said = f"the inputs of {', '.join(unknown)} of {result.name} are not compared: their records are not in DVC's cache"
    return _noted(result, said, records) if unknown else ResultFolder(result.side, result.folder, records)


def _noted(result: ResultFolder, note: str, records: dict[str, dict[str, Any]] | None = None) -> ResultFolder:
    return ResultFolder(result.side, result.folder, records or {}, (note,))
