"""The journal of a sweep: one JSON object per line, the settings first, then one line per trial that ended.

A line that a full disk cuts is taken back. So a kill leaves whole lines and at most one torn line at the end, which the
next run cuts off. What the journal holds is never run again.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError, naming
from codex_ml.core.io import fsync_folder
from codex_ml.core.problems import first_problem
from codex_ml.core.strict_json import ndjson_line, parse_json_file

JOURNAL = "journal.ndjson"
Line = TypeVar("Line", bound=Contract)


class SweepSettings(Contract):
    """What decides the trials of a sweep; the first line of its journal.

    Attributes:
        space: the settings `KEY=DISTRIBUTION`, in the order of the axes.
        metric: dotted name with the stage first, such as train.best_val_loss.
        head: the commit whose files the trials use.
    """

    name: str
    space: list[str]
    method: Literal["grid", "random", "sobol", "tpe"]
    metric: str
    direction: Literal["min", "max"]
    seed: int
    stop_early: bool
    head: str


class SweepTrial(Contract):
    """A trial that ended; a line of the journal.

    Attributes:
        number: from 0.
        params: key -> value as text of params.yaml.
        state: finished; stopped by the median rule; failed: DVC or the stage ended with an error; refused: params.yaml
            does not allow these values together, so nothing ran.
        value: the metric; None unless finished.
        curve: (step, validation loss) up to the end or the stop.
        experiment: name of the DVC experiment. A trial that was stopped while it ran, or that failed, leaves none.
        commit: of the experiment, None without one.
        seconds: it ran for; None where it ended after its sweep was killed, so that no one saw for how long.
        why: one line about a trial that is not finished; "" for others.
    """

    number: int = Field(ge=0)
    params: dict[str, str]
    state: Literal["finished", "stopped", "failed", "refused"]
    value: float | None
    curve: list[tuple[int, float]]
    experiment: str
    commit: str | None
    seconds: float | None
    why: str

    @model_validator(mode="after")
    def _has_value_where_finished(self) -> Self:
        if (self.value is not None) != (self.state == "finished"):
            raise ValueError("a finished trial has a value, and no other has one")
        return self


class Journal:
    """Reads and appends the trials of one sweep."""

    def __init__(self, folder: Path, settings: SweepSettings) -> None:
        """Open the journal in `folder`, or begin one; only the holder of `command_lock` may.

        Raises:
            UserError: when the folder holds the journal of a sweep with other settings, or something else; nothing of
                it changes then.
        """
        self.file, self.trials = folder / JOURNAL, dict[int, SweepTrial]()
        lines = _whole_lines(self.file)
        if not lines:
            self._cut_torn_line()
            self._append(settings)
            return
        found = _read(SweepSettings, lines[0], self.file, 1)
        if found != settings:
            differ = [key for key in SweepSettings.model_fields if getattr(found, key) != getattr(settings, key)]
            key = differ[0]
            raise UserError(
                f"{self.file} is of a sweep with another {key}: {getattr(found, key)}, not {getattr(settings, key)}; "
                "give this sweep another --name"
            )
        for number, line in enumerate(lines[1:], 2):
            trial = _read(SweepTrial, line, self.file, number)
            if trial.number in self.trials:
                raise UserError(f"{self.file}:{number}: trial {trial.number} is there twice; delete one of the lines")
            self.trials[trial.number] = trial
        self._cut_torn_line()

    def add(self, trial: SweepTrial) -> None:
        """Append a trial, durably.

        Raises:
            OSError: when the disk is full or fails; the journal is as before then.
        """
        self._append(trial)
        self.trials[trial.number] = trial

    def before(self, number: int) -> list[SweepTrial]:
        """The trials with a lower number, in order."""
        return [self.trials[other] for other in sorted(self.trials) if other < number]

    def _cut_torn_line(self) -> None:
        if not self.file.exists():
            return
        with naming(self.file), self.file.open("r+b") as handle:
            data = handle.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                handle.truncate(whole)
                os.fsync(handle.fileno())

    def _append(self, line: Contract) -> None:
        with naming(self.file), self.file.open("ab", buffering=0) as handle:
            end = handle.seek(0, os.SEEK_END)
            try:
                left = ndjson_line(line.model_dump(mode="json"))
                while left:  # a disk with room for a part of the line takes the part, and refuses the next write
                    left = left[handle.write(left) :]
                os.fsync(handle.fileno())
            except BaseException:
                handle.truncate(end)
                raise
        fsync_folder(self.file.parent)


def _read(kind: type[Line], line: bytes, file: Path, number: int) -> Line:
    parse_json_file(line, str(file), line=number)  # refuses NaN and keys that are given twice, which pydantic takes
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise UserError(
            f"{file}:{number}: not a line of a sweep's journal: {first_problem(error, show=False).line}; choose "
            "another --name, or move the file away"
        ) from None


def _whole_lines(file: Path) -> list[bytes]:
    """The lines of a journal that have their newline."""
    if not file.exists():
        return []
    data = file.read_bytes()
    return data[: data.rfind(b"\n") + 1].splitlines()
