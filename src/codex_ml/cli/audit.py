"""`codex-ml audit`: audit any model, outside the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.completion import audit_keys, one_of
from codex_ml.cli.measure_options import Kind, naming_options
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.inference.audit_files import Audit

app = typer.Typer()
DATA = "a split, or a file or folder that ingest can read"
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set-param", "-S", metavar="KEY=VALUE", help="A key of safety_audit: windows=1000.", autocompletion=audit_keys
    ),
]


@app.command()
def audit(
    model: Annotated[str, typer.Option(metavar="MODEL", help="A folder of a model, or a GGUF file.")],
    train: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Documents that the model was trained on: {DATA}.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option("--held-out", metavar="DATA", help=f"Documents that it has not seen: {DATA}.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model with the same tokenizer that has not read --train.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Write the whole audit into this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the audit that --out holds.")] = False,
    kind: Kind = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="small or full; replaces windows and samples of params.yaml too.",
            autocompletion=one_of("small", "full"),
        ),
    ] = None,
    changes: Changes = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Audit a model: what it leaks, copies or emits, each number with an interval and a control, and a verdict.

    The gates are those of data/policy.yaml, and the settings are those of params.yaml. Without --train or --held-out
    the parts that need these documents are skipped, and the result is invalid. On models/model with the splits it gives
    the result of the stage `safety_audit`. Exit codes: 0 pass, 1 fail or invalid, 2 your input is wrong.

    Example: codex-ml audit --model ../their_model --train theirs.jsonl --held-out ours.jsonl --out audits/theirs
    """
    from codex_ml.cli.audit_model import AuditInputs, audit_model, audit_settings, options_of_audit
    from codex_ml.cli.result_target import refuse_target
    from codex_ml.inference.audit_files import DETAILS

    with one_line_errors(debug=debug):
        here = go_to_top()
        settings = audit_settings(changes, size)
        target = here / out if out is not None else None
        if target is not None:
            refuse_target(target, force=force, mark=DETAILS)
        elif force:
            raise UserError("--force replaces the audit in the folder of --out; name that folder")
        inputs = AuditInputs(
            model=here / model,
            train=None if train is None else here / train,
            held_out=None if held_out is None else here / held_out,
            kind=kind,
            reference=None if reference is None else here / reference,
        )
        with scratch_folder() as scratch, naming_options(options_of_audit(changes)):
            found = audit_model(settings, inputs, target or scratch / "audit", say=_say)
        if json:
            print_json(found.as_json())
        else:
            for line in _lines(found, out):
                say(line)
        if found.verdict != "pass":
            raise SystemExit(1)


def _say(line: str) -> None:
    say(line, err=True)


def _lines(found: Audit, out: str | None) -> Iterator[str]:
    """The audit as text: the sentence, one line per gate and per skipped part, notes, and where the folder is."""
    from codex_ml.safety_audit.battery import headlines

    yield from headlines(found)
    if out is not None:
        yield f"the whole audit: {out}"
