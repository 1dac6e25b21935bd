"""The command `codex-ml`. Imports are inside the commands: help and check must be there at once."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from codex_ml import __version__
from codex_ml.core.conflicts import conflict_in
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors, safe_text
from codex_ml.core.top import go_to_top

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
    screen = sys.stdout
    sys.stdout = cast(TextIO, _Output(screen))
    try:
        whole_app()()
    except Exception as error:  # of an import: what a command does is caught inside it
        if "--debug" in sys.argv:
            raise
        print(f"error: {safe_text(_broken_module(error))}", file=sys.stderr)
        sys.exit(1)
    finally:
        sys.stdout.flush()  # here, because an error of Python's own flush at its end has no exit code of ours
        sys.stdout = screen


def _broken_module(error: Exception) -> str:
    """One line about an error of the library itself, which `verify` may meet where it is to find the damage."""
    package = Path(__file__).parents[1]
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    place = getattr(error, "filename", None) or next((f for f in reversed(frames) if f.is_relative_to(package)), "")
    name = f"src/codex_ml/{Path(place).relative_to(package)}" if Path(place).is_relative_to(package) else place
    if isinstance(error, SyntaxError) and place and (conflict := conflict_in(Path(place), str(name))):
        return conflict
    return f"{name}: {type(error).__name__}: {error}; `git diff` shows what was changed in the library"


class _Output:
    """Standard output of which a reader such as `head` may take only a part.

    What nobody reads any more is dropped, and the command goes on: its exit code is that of its work.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


@functools.cache  # it adds to `app`, and a second call in one process would add every group again
def whole_app() -> typer.Typer:
    """The commands with the groups that have modules of their own."""
    from codex_ml.cli import hooks
    from codex_ml.cli import ledger as ledger_commands
    from codex_ml.cli import pack as pack_commands
    from codex_ml.cli import policy as policy_commands
    from codex_ml.cli import tokenizer as tokenizer_commands

    app.add_typer(hooks.app, name="hook", help="The checks behind the pre-commit hooks.")
    app.add_typer(tokenizer_commands.app, name="tokenizer")
    app.add_typer(pack_commands.app, name="pack")
    app.add_typer(ledger_commands.app, name="ledger")
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
    stages that read what they do not declare, imports missing from deps, outputs that Git tracks, conflicts of a Git
    merge, missing or damaged inputs and base models, package versions that are not those of requirements.lock, and what
    a killed DVC left behind.
    """
    from codex_ml.cli.check import check_workspace
    from codex_ml.policy.key import KEY, warning

    with one_line_errors(debug=debug):
        go_to_top()
        params = check_workspace()
        if note := warning(KEY, (source.path for source in params.ingest.sources)):
            typer.echo(f"warning: {note}", err=True)
        _warn_of_lines_not_compared()
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
    from codex_ml.cli.verify import verify as links
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        here = go_to_top()
        _warn_of_lines_not_compared()
        count = 0
        for link in links(None if path is None else _relative(path, here)):
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
    whole: Annotated[bool, typer.Option("--all", help="Print every file, the code and the parameters too.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what a result was made from, stage by stage, at any Git revision.

    One screen: the hash of the result, the commit, and for each stage what it wrote and from what. Exits with 1 when
    dvc.lock holds stages of several runs, and names the first two that do not belong together. With --json a stage has
    the record of its start, or null where neither Git nor DVC's cache holds it; `dvc fetch --all-commits` brings it.
    """
    from codex_ml.cli.lineage import lineage as chain
    from codex_ml.cli.lineage import summary
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        place = _relative(path, go_to_top())
        steps = chain(place, rev)
        if json:
            typer.echo(dump_json([step.as_json() for step in steps]), nl=False)
            return
        for line in summary(place, steps, rev):
            typer.echo(safe_text(line))
        for step in steps if whole else ():
            typer.echo(safe_text(f"\n{step.spec.name}: {step.spec.desc}"))
            for role, files in (("out", step.locked.outs), ("dep", step.locked.deps)):
                for name, md5 in files.items():
                    typer.echo(_aligned("", role, name, md5))
            typer.echo(_aligned("", "params", dump_json(step.locked.params, indent=None).strip(), ""))


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of params.yaml, for editors; params.schema.json is a copy of it."""
    from codex_ml.cli.params import json_schema
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        typer.echo(dump_json(json_schema()), nl=False)


@app.command()
def merge(
    commits: Annotated[
        list[str] | None, typer.Argument(help="Other commits that have lines of the ledger which are lost here.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Unite two people's work after `git merge`, rebase, cherry-pick, stash pop or `dvc exp apply`.

    The split ledger gets the lines of all sides, results become those of HEAD for a rerun to write anew, and what only
    people can settle is listed: parameters, code, pointers to data. Exits with 1 while something is left. A second time
    it changes nothing. docs/teams.md shows a merge from begin to end.
    """
    from dataclasses import asdict

    from codex_ml.cli.merge import merge as unite
    from codex_ml.cli.merge import report
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        go_to_top()
        done = unite(commits or [])
        if json:
            typer.echo(dump_json(asdict(done)), nl=False)
        else:
            for line in report(done):
                typer.echo(safe_text(line))
        if done.left:
            raise CheckFailed(
                f"{len(done.left)} file{' is' if len(done.left) == 1 else 's are'} left for you to settle"
            )


def _warn_of_lines_not_compared() -> None:
    from codex_ml.cli.history.lost_lines import baselines, not_compared
    from codex_ml.cli.history.versions import version_in_folder

    for note in not_compared(version_in_folder(), baselines()):
        typer.echo(safe_text(f"warning: {note}"), err=True)


def _relative(path: str, here: Path) -> str:
    """A path that the user typed in the folder `here`, relative to the top folder, with forward slashes."""
    place = Path(os.path.relpath(here / path))
    if os.pardir in place.parts:
        raise UserError(f"{path} lies outside this repository")
    return place.as_posix()


def _aligned(stage: str, role: str, path: str, digest: str) -> str:
    return safe_text(f"{stage:<13} {role:<7} {path}  {digest}".rstrip())
