"""Findings that a reviewer accepted: data/accepted_findings.yaml, a list of ids with a reason and a last day.

A gate does not count an accepted finding. Every acceptance ends: after its last day the stage refuses the entry when it
starts, and `codex-ml check` refuses it without a run, so a committed verdict cannot outlive it. The outputs of the
stage do not depend on the date: with the same file, the stage gives the same bytes or refuses to run.
Used by: stages/safety_audit.py, cli.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from codex_ml.core.errors import CheckFailed, UserError, safe_text
from codex_ml.core.problems import Problem, first_problem
from codex_ml.core.yaml import MAX_BYTES, line_of, parse_yaml, read_text
from codex_ml.policy.gate_rules import ONE_LINE

ACCEPTED = Path("data/accepted_findings.yaml")
Clean = Callable[[str], str]
Line = Annotated[str, Field(pattern=ONE_LINE)]


class AcceptedFinding(BaseModel):
    """One entry of data/accepted_findings.yaml.

    Attributes:
        id: as in findings.ndjson, see `finding_id`.
        reason: why the finding may stay.
        expires: the last day (UTC) on which the entry counts.
        by: who accepted it; "" if nobody says so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    reason: Annotated[Line, Field(max_length=500)]
    expires: date
    by: Annotated[Line, Field(max_length=100)] | None = None

    @field_validator("id", mode="before")
    @classmethod
    def _is_an_id(cls, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError('this id is a number in YAML; put it in quotes: id: "012345678901"')
        if len(value) != 12 or set(value) - set("0123456789abcdef"):
            raise ValueError("expected the id of a finding, 12 digits of 0-9 and a-f, as in findings.ndjson")
        return value

    @field_validator("expires", mode="before")
    @classmethod
    def _is_a_day(cls, value: Any) -> Any:
        if isinstance(value, datetime) or not isinstance(value, date):
            raise ValueError("expected a day without quotes and without a time, such as 2027-01-31")
        return value


def read_accepted(path: Path = ACCEPTED, *, clean: Clean) -> tuple[AcceptedFinding, ...]:
    """Read the file; one that holds nothing but comments accepts nothing.

    Args:
        clean: replaces what the text policy forbids. A message shows what stands in the file, which may be a secret.

    Raises:
        UserError: for the first mistake, as one line: file, line, key, what is allowed.
    """
    try:
        return _read(path)
    except UserError as error:
        raise UserError(safe_text(clean(str(error)))) from None


def _read(path: Path) -> tuple[AcceptedFinding, ...]:
    text = read_text(path)
    if len(text.encode("utf-8")) > MAX_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_BYTES // 1024} KiB; for so many findings of one kind, change the rule or the "
            "gate in data/policy.yaml"
        )
    value = parse_yaml(text, str(path))
    if value == {}:  # nothing but comments
        return ()
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of entries with id, reason and expires; see the comment at its top")
    try:
        entries = TypeAdapter(tuple[AcceptedFinding, ...]).validate_python(tuple(value))
    except ValidationError as error:
        problem = first_problem(error)
        raise UserError(f"{_where(text, path, problem.place)}: {_explain(problem)}{problem.more}") from None
    numbers: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if entry.id in numbers:
            first, again = (_where(text, path, (at, "id")) for at in (numbers[entry.id], number))
            raise UserError(f"{again}: {entry.id} is accepted by {first} too; keep one of both")
        numbers[entry.id] = number
    return entries


def _where(text: str, path: Path, place: tuple[int | str, ...]) -> str:
    line = line_of(text, place)
    return f"{path}:{line}" if line else str(path)


def _explain(problem: Problem) -> str:
    key = ".".join(map(str, problem.place[1:]))
    if problem.kind == "extra_forbidden":
        near = difflib.get_close_matches(key, AcceptedFinding.model_fields, n=1)
        return f"{key} is not a key of an entry; " + (
            f"did you mean {near[0]}?" if near else f"known are {', '.join(AcceptedFinding.model_fields)}"
        )
    if problem.kind == "missing":
        return f"the key {key} is missing"
    if problem.kind == "string_pattern_mismatch":
        return f"{key}: expected one line of text"
    return f"{key}: {problem.message}" if key else "expected an entry with the keys id, reason and expires"


def refuse_expired(entries: Iterable[AcceptedFinding], path: Path = ACCEPTED, *, clean: Clean) -> None:
    """Refuse to accept findings beyond the last day of their entries.

    Args:
        clean: as in `read_accepted`; a reason may quote a secret.

    Raises:
        CheckFailed: naming each entry that has expired.
    """
    today = today_utc()
    expired = [
        f"{path}: finding {entry.id} was accepted until {entry.expires} ({clean(entry.reason)}); review it again, then "
        "remove the entry or give it a new day"
        for entry in entries
        if entry.expires < today
    ]
    if expired:
        raise CheckFailed("; ".join(expired))


def today_utc() -> date:
    """The day in UTC, so that machines in two time zones agree."""
    return datetime.now(UTC).date()
