"""One line of `codex-ml doctor`, and the JSON objects that it prints with --json.

Used by: `codex-ml doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from codex_ml.core.contract import Contract
from codex_ml.core.error_log import ErrorLine
from codex_ml.core.errors import one_line

Status = Literal["ok", "warn", "bad"]


class DoctorFinding(Contract):
    """What was found about one thing.

    Attributes:
        name: of the thing, such as "compiler".
        status: "bad": something will fail. "warn": it works, but slower, or without a protection. "ok": else.
        text: what was found, on one line.
        mend: the command that mends it, or for "ok" one that gives more; "" where there is none.
    """

    name: str
    status: Status
    text: str
    mend: str


class Diagnosis(Contract):
    """All findings; `exit_code` is 1 if one is bad."""

    findings: list[DoctorFinding]
    exit_code: Literal[0, 1]


class LastError(Contract):
    """What `codex-ml doctor --last-error --json` prints; null where no failure is recorded."""

    error: ErrorLine | None


def ok(name: str, text: str, mend: str = "") -> DoctorFinding:
    """A finding that needs nothing."""
    return DoctorFinding(name=name, status="ok", text=text, mend=mend)


def warn(name: str, text: str, mend: str) -> DoctorFinding:
    """A finding that costs speed or a protection."""
    return DoctorFinding(name=name, status="warn", text=text, mend=mend)


def bad(name: str, text: str, mend: str) -> DoctorFinding:
    """A finding because of which something fails."""
    return DoctorFinding(name=name, status="bad", text=text, mend=mend)


Examination = Callable[[], Iterable[DoctorFinding]]


def examined(examinations: dict[str, Examination]) -> Iterator[DoctorFinding]:
    """The findings of all examinations; one that fails is a finding too, so that the others are still made."""
    for name, examine in examinations.items():
        try:
            yield from examine()
        except Exception as error:
            text = f"could not be examined: {type(error).__name__}: {one_line(error)}"
            yield bad(name, text, "codex-ml doctor --debug")
