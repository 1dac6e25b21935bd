"""Put together what the trackers get about a stage, from its metrics, its record and its side note.

Used by: `codex-ml track`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError, one_line
from codex_ml.core.folders import logs_folder
from codex_ml.core.hashing import sha256_of
from codex_ml.core.io import read_json
from codex_ml.core.record import Record, record_path
from codex_ml.core.side_note import SideNote, commit_of, read_side_note, tags_of
from codex_ml.inference.audit_files import DETAILS, Audit
from codex_ml.modeling.train_files import Training
from codex_ml.train.result_trackers import StageResults, add_results

KINDS = {"evaluate": "evaluation", "safety_audit": "audit"}
MODEL = "models/model"
UNUSUAL = re.compile(r"[^A-Za-z0-9_./ -]|(?<![^/])\.{1,2}(?![^/])")  # of a name; MLflow's store makes paths of names


class SentResults(Contract):
    """What one tracker got of one stage.

    Attributes:
        numbers: how many metrics it got; 0 for a plug-in that takes none.
        failed: why it got none; "" where nothing went wrong.
    """

    stage: str
    tracker: str
    numbers: int
    failed: str


class SentList(Contract):
    """What `codex-ml track --json` prints; `run` is the name of the run in the trackers."""

    run: str
    sent: list[SentResults]


def send(stages: list[str], trackers: tuple[str, ...]) -> SentList:
    """Send the results of stages to trackers; one that fails does not keep the others from theirs.

    Raises:
        UserError: when a stage has no results.
    """
    found = {stage: results_of(stage) for stage in stages}
    digest = next(iter(found.values())).texts["model"].rpartition(":")[2]
    run_name, folder = tracked_run(digest), logs_folder(shared=True) / "train"
    return SentList(
        run=run_name,
        sent=[
            _sent(stage, tracker, folder, run_name, results)
            for stage, results in found.items()
            for tracker in dict.fromkeys(trackers)
        ],
    )


def _sent(stage: str, tracker: str, folder: Path, run_name: str, results: StageResults) -> SentResults:
    try:
        with redirect_stdout(sys.stderr):  # what a library prints is not what the command prints
            numbers = len(results.numbers) if add_results(tracker, folder, run_name, results) else 0
    except (Exception, SystemExit) as error:  # any library and any plug-in
        return SentResults(stage=stage, tracker=tracker, numbers=0, failed=f"{type(error).__name__}: {one_line(error)}")
    return SentResults(stage=stage, tracker=tracker, numbers=numbers, failed="")


def results_of(stage: str) -> StageResults:
    """Read what a stage measured.

    Raises:
        UserError: when it has not run, or a file is damaged.
    """
    kind, folder = KINDS[stage], record_path(stage).parent
    record, train = _record(stage), _record("train")
    note = read_side_note(stage)
    data = {path: f"{path}@sha256:{hashes.sha256}" for path, hashes in sorted(record.data.items())}
    if MODEL not in data:
        raise UserError(f"{record_path(stage)} names no {MODEL}; `dvc repro {stage}` makes it anew")
    texts = {
        "model": data[MODEL],
        "artifacts": " ".join(data.values()),
        "run": note.run if note else "unknown",
        "commit": commit_of(note),
    }
    if stage == "safety_audit":
        texts["verdict"] = Audit.read(folder / DETAILS).verdict
    return StageResults(
        kind=kind,
        step=Training.read(Path(MODEL) / "training.json").global_step,
        numbers=dict(_numbers(read_json(folder / "metrics.json"), kind)),
        texts=texts,
        tags=tags_of(_note_of_training(), seed=train.params["seed"]),
        config=train.params,
    )


def tracked_run(digest: str) -> str:
    """The name of the training's run in the trackers; that of the model where it was not trained on this machine.

    Args:
        digest: of the model.
    """
    note = _note_of_training()
    recipe = note.resolved.get("recipe") if note else None
    if isinstance(recipe, str) and re.fullmatch(r"[A-Za-z0-9-]{1,100}", recipe):
        return recipe
    return f"model-{digest[:16]}"


def _note_of_training() -> SideNote | None:
    """The side note of the training that made the model, also one of an experiment whose training was not repeated."""
    record = sha256_of(record_path("train"))
    shared = logs_folder(shared=True)
    for folder in dict.fromkeys((logs_folder(), shared, *sorted((shared / "experiments").glob("*")))):
        try:
            note = SideNote.read(folder / "environment/train.json", stage="train")
        except (UserError, OSError):  # no training in this folder, or one of another version
            continue
        if note.record == record:
            return note
    return None


def _record(stage: str) -> Record:
    return Record.read(record_path(stage), stage=stage)


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of nested mappings by name; "/" separates the parts."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _numbers(value[key], f"{name}/{UNUSUAL.sub('_', key)}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)
