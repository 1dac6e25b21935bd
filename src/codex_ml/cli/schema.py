"""`codex-ml schema`: the JSON Schema of params.yaml."""

from __future__ import annotations

import typer

from codex_ml.cli.options import Debug
from codex_ml.core.errors import one_line_errors


def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of params.yaml, for editors; params.schema.json is a copy of it."""
    from codex_ml.cli.param_rules import json_schema
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        typer.echo(dump_json(json_schema()), nl=False)
