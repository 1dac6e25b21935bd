"""`codex-ml params`: bring params.yaml to the form of this checkout."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import CheckFailed, one_line_errors
from codex_ml.core.repository_root import go_to_top

app = typer.Typer(no_args_is_help=True, help="Bring params.yaml to the form that this checkout reads.")


@app.callback()
def _group() -> None:
    """With one command, Typer would leave out its name."""


@app.command()
def upgrade(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 1 if a change is needed.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rewrite a params.yaml of an older version: keys get the names of this version; comments and order stay.

    A file that is up to date stays as it is. A file of a newer version is refused. What only you can decide is left,
    and named.

    Example: codex-ml params upgrade --check
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.param_upgrade import VERSION, ParamUpgrade, refuse_newer, upgraded
    from codex_ml.core.io import write_text
    from codex_ml.core.sections import PARAMS
    from codex_ml.core.yaml import parse_yaml, read_text

    with one_line_errors(debug=debug):
        go_to_top()
        text = read_text(PARAMS)
        refuse_newer(parse_yaml(text, str(PARAMS)), str(PARAMS))
        new, said = upgraded(text, str(PARAMS))
        parse_yaml(new, str(PARAMS))
        if said and not check:
            write_text(PARAMS, new)
        if json:
            done = ParamUpgrade(version=VERSION, changes=said, written=bool(said) and not check)
            print_json(done.model_dump(mode="json"))
        else:
            for line in said or [f"{PARAMS} has the form of version {VERSION}; nothing to do"]:
                say(line)
        if said and check:
            raise CheckFailed(f"{PARAMS} needs {len(said)} change(s); `codex-ml params upgrade` makes them")
        load_params()  # names what is left for the user
