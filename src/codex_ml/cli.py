"""The command `codex-ml`. Imports are inside the commands: help and check must be there at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml import __version__
from codex_ml.errors import UserError, one_line_errors, safe_text

if TYPE_CHECKING:
    pass

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, evaluate and safety-audit language models in a pipeline whose every byte can be traced.\n\n"
    "The pipeline itself runs with `dvc repro`; these commands look at it. Exit codes: 0 good, 1 a check failed, "
    "2 your input is wrong.",
)
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    whole_app()()


def whole_app() -> typer.Typer:
    """The commands with the groups that have modules of their own."""
    from codex_ml import hooks, tokenizer_commands
    from codex_ml.data import commands as pack_commands
    from codex_ml.policy import commands as policy_commands

    app.add_typer(hooks.app, name="hook", help="The checks behind the pre-commit hooks.")
    app.add_typer(tokenizer_commands.app, name="tokenizer")
    app.add_typer(pack_commands.app, name="pack")
    app.add_typer(policy_commands.app, name="policy")
    return app


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def check(debug: Debug = False) -> None:
    """Validate params.yaml, dvc.yaml and the workspace, before any work and without torch.

    Finds unknown keys (and names the closest), wrong types, impossible combinations, params that no stage reads,
    stages that read what they do not declare, imports missing from deps, and outputs that Git tracks.
    """
    from codex_ml.check import check_workspace
    from codex_ml.policy.key import KEY, warning

    with one_line_errors(debug=debug):
        params = check_workspace()
        if note := warning(KEY, (source.path for source in params.ingest.sources)):
            typer.echo(f"warning: {note}", err=True)
        typer.echo("check: params.yaml, dvc.yaml and the workspace are in order")


@app.command()
def verify(
    path: Annotated[
        str | None, typer.Argument(help="A result such as models/model; all results when left out.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Recompute every hash from a result back to data/sample.lock and compare with dvc.lock and the stages' records.

    Prints the chain; exits with 1 at the first broken link and names it.
    """
    from codex_ml.io import dump_json
    from codex_ml.verify import verify as links

    with one_line_errors(debug=debug):
        count = 0
        for link in links(_relative(path)):
            count += 1
            typer.echo(
                dump_json(vars(link), indent=None)[:-1]
                if json
                else _aligned(link.stage, link.role, link.path, link.md5)
            )
        if not json:
            typer.echo(f"verify: {count} links hold")


@app.command()
def lineage(
    path: Annotated[str, typer.Argument(help="A result such as models/model or reports/evaluate/metrics.json.")],
    rev: Annotated[str | None, typer.Option(help="Git revision: a commit, a tag, an experiment.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what a result was made from, stage by stage, at any Git revision."""
    from codex_ml.io import dump_json
    from codex_ml.verify import lineage as chain

    with one_line_errors(debug=debug):
        steps = chain(_relative(path) or "", rev)
        if json:
            typer.echo(dump_json(steps), nl=False)
            return
        for step in steps:
            typer.echo(f"{step['stage']}: {step['desc']}")
            for role in ("outs", "deps"):
                for name, md5 in step[role].items():
                    typer.echo(_aligned("", role[:-1], name, md5))
            typer.echo(_aligned("", "params", dump_json(step["params"], indent=None).strip(), ""))


ledger_app = typer.Typer(no_args_is_help=True, help="The split ledger: what it lists keeps its split for ever.")
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("accept")
def ledger_accept(debug: Debug = False) -> None:
    """Make the last split binding: data/splits/ledger.ndjson takes the place of data/split_ledger.ndjson.

    From then on no document of it moves, whatever is added. Commit the file, or keep it with `dvc add`; the next
    `dvc repro` reads it and gives the same splits.
    """
    from codex_ml.data.ledger import accept

    with one_line_errors(debug=debug):
        added = accept(Path("data/splits/ledger.ndjson"), Path("data/split_ledger.ndjson"))
        typer.echo(f"ledger: {added} new lines in data/split_ledger.ndjson")


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of params.yaml, for editors; params.schema.json is a copy of it."""
    from codex_ml.io import dump_json
    from codex_ml.params import json_schema

    with one_line_errors(debug=debug):
        typer.echo(dump_json(json_schema()), nl=False)


def _relative(path: str | None) -> str | None:
    """The path relative to the repository's top folder, with forward slashes."""
    if path is None:
        return None
    if not Path("dvc.yaml").is_file():
        raise UserError("no dvc.yaml here; run this from the repository's top folder")
    absolute = Path(path).absolute()
    if not absolute.is_relative_to(Path.cwd()):
        raise UserError(f"{path} lies outside this repository")
    return absolute.relative_to(Path.cwd()).as_posix()


def _aligned(stage: str, role: str, path: str, digest: str) -> str:
    return safe_text(f"{stage:<13} {role:<7} {path}  {digest}".rstrip())
