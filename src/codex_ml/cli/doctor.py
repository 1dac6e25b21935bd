"""`codex-ml doctor`: examine the machine and the checkout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.diagnosis.doctor_finding import Diagnosis
    from codex_ml.core.error_log import ErrorLine


def doctor(
    last_error: Annotated[
        bool, typer.Option("--last-error", help="Show the last failure of a stage or command instead.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Examine the machine and this checkout, and name the command that mends what is wrong.

    It looks at Python, torch, GPU, compiler, cores, memory, disk, packages, Git, hooks, write access, links of DVC's
    cache, locks, scratch folders, optional extras and the sandbox. It changes nothing. Exit code 1 if something is bad;
    a warning costs speed or a protection only.

    Examples: codex-ml doctor; after a failure, codex-ml doctor --last-error
    """
    with one_line_errors(debug=debug):
        go_to_top()
        if last_error:
            _show_last_error(json=json)
            return
        found = _diagnosis()
        if json:
            print_json(found.model_dump(mode="json"))
        else:
            for line in _lines(found):
                say(line)
    raise typer.Exit(found.exit_code)


def _show_last_error(*, json: bool) -> None:
    """Print the newest line of logs/errors.ndjson."""
    from codex_ml.cli.diagnosis.doctor_finding import LastError
    from codex_ml.core.error_log import last_error

    found = last_error()
    if json:
        print_json(LastError(error=found).as_json(), indent=None)
        return
    for line in _lines_of_error(found) if found else ["doctor: no failure is recorded in logs/errors.ndjson"]:
        say(line)


def _lines_of_error(found: ErrorLine) -> Iterator[str]:
    yield f"{found.time}  {found.where}  {found.kind}, exit code {found.exit_code}, run {found.run}"
    yield f"error: {found.message}"
    if found.step:
        yield f"step: {found.step}"
    for name, value in sorted(found.context.items()):
        yield f"{name}: {'; '.join(value) if isinstance(value, list) else value}"
    if found.traceback:
        yield found.traceback.rstrip()
    yield f"->  {found.suggestion}"


def _diagnosis() -> Diagnosis:
    from codex_ml.cli.diagnosis import checkout_state as checkout
    from codex_ml.cli.diagnosis import machine_state as machine
    from codex_ml.cli.diagnosis.doctor_finding import Diagnosis, examined
    from codex_ml.cli.diagnosis.kept_files import kept_files
    from codex_ml.cli.diagnosis.optional_extras import extras

    findings = list(
        examined({
            "python": machine.python, "packages": checkout.packages, "torch": machine.torch, "gpu": machine.gpu,
            "compiler": machine.compiler, "cores": machine.processor, "memory": machine.memory, "disk": machine.disk,
            "sandbox": machine.sandbox, "git": checkout.git, "hooks": checkout.hooks,
            "write access": checkout.write_access, "DVC cache": checkout.links, "locks": checkout.locks,
            "scratch": kept_files, "extras": extras,
        })
    )  # fmt: skip
    return Diagnosis(findings=findings, exit_code=1 if any(finding.status == "bad" for finding in findings) else 0)


def _lines(found: Diagnosis) -> Iterator[str]:
    for finding in found.findings:
        mend = f"  ->  {finding.mend}" if finding.mend else ""
        text = " ".join(finding.text.split())
        yield f"{finding.status:<4}  {finding.name:<14}  {text}{mend}"
    counts = {status: sum(finding.status == status for finding in found.findings) for status in ("ok", "warn", "bad")}
    yield "doctor: " + ", ".join(f"{count} {status}" for status, count in counts.items())
