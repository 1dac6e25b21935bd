"""`codex-ml schema`: the JSON Schema of params.yaml, and of what a command prints with --json."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.completion import commands_with_json
from codex_ml.cli.options import Debug
from codex_ml.core.errors import one_line_errors


def schema(
    of: Annotated[
        str | None,
        typer.Option(
            "--of",
            metavar="COMMAND",
            help="Of what this command prints with --json.",
            autocompletion=commands_with_json,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print a JSON Schema: of params.yaml, for editors, or of what a command prints with --json, for programs.

    params.schema.json is a copy of the first. No object has a key that its schema does not name.

    Example: codex-ml schema --of "params upgrade"
    """
    from codex_ml.cli.json_outputs import output_schema
    from codex_ml.cli.param_rules import json_schema
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        typer.echo(dump_json(json_schema() if of is None else output_schema(of)), nl=False)
