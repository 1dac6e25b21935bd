"""The command `codex-ml`, put together from one module per command.

Those modules import what they need inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

import functools
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from codex_ml import __version__
from codex_ml.cli.output import Output
from codex_ml.core.errors import Failure, UserError, on_failure, one_line_errors, safe_text
from codex_ml.core.namesakes import all_in_one, namesakes
from codex_ml.core.start_failure import start_failure

COMMAND = re.compile("[a-z][a-z-]*")
JUDGES = ("check", "verify")  # they name such files themselves, with all others, and with their own exit codes


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    screen = sys.stdout
    sys.stdout = cast(TextIO, Output(screen))
    try:
        with on_failure(_record, clean=_shown):
            _refuse_namesakes(sys.argv[1:])
            app_for(sys.argv[1:])()
    except Exception as error:  # an import failed: a command handles its own errors
        if "--debug" in sys.argv:
            raise
        known = start_failure(error)
        print(f"error: {safe_text(_shown(known or _broken_module(error)))}", file=sys.stderr)
        sys.exit(2 if known else 1)
    finally:
        sys.stdout.flush()  # here, because Python's own flush at exit would not set our exit code
        sys.stdout = screen


def _refuse_namesakes(words: list[str]) -> None:
    """Refuse files that this Python would import in place of a module: a command would use them without a word."""
    if words[:1] and words[0] not in JUDGES:
        with one_line_errors(debug="--debug" in words):
            if found := namesakes((".",) if {"", str(Path.cwd())} & {*sys.path} else ()):
                raise UserError(all_in_one(found))


def _record(failure: Failure) -> None:
    """Add a failure of a command to logs/errors.ndjson."""
    from codex_ml.core.error_log import record_failure

    record_failure(command_name(sys.argv[1:]), "", failure)


def _shown(message: str) -> str:
    """A message of a command as it may be shown."""
    from codex_ml.core.message_cleaner import clean_shown

    return clean_shown(message)


def command_name(words: list[str]) -> str:
    """The command that these words call, such as "codex-ml tokenizer export"; its arguments may hold anything."""
    groups = {group.name for group in whole_app().registered_groups}
    named = [word for word in words[: 1 + (words[:1] != [] and words[0] in groups)] if COMMAND.fullmatch(word)]
    return " ".join(["codex-ml", *named])


def _broken_module(error: Exception) -> str:
    """One line about an error in the library itself, such as damage that `verify` must report."""
    package = Path(__file__).parents[1]
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    place = getattr(error, "filename", None) or next((f for f in reversed(frames) if f.is_relative_to(package)), "")
    name = f"src/codex_ml/{Path(place).relative_to(package)}" if Path(place).is_relative_to(package) else place
    return f"{name}: {type(error).__name__}: {error}; `git diff` shows what was changed in the library"


@functools.cache  # a process builds the commands once
def whole_app() -> typer.Typer:
    """The commands and the groups of commands, each from its own module."""
    from codex_ml.cli import (
        audit,
        compare,
        evaluate,
        export,
        generate,
        hooks,
        ledger,
        pack,
        params,
        plugin_commands,
        policy,
        serve,
        sweep,
        tokenizer,
    )
    from codex_ml.cli.accept_code import accept_code
    from codex_ml.cli.check import check
    from codex_ml.cli.doctor import doctor
    from codex_ml.cli.folds import folds
    from codex_ml.cli.help_text import help_of
    from codex_ml.cli.init import init
    from codex_ml.cli.installed_packages import packages
    from codex_ml.cli.lineage import lineage
    from codex_ml.cli.logs import logs
    from codex_ml.cli.merge import merge
    from codex_ml.cli.plan import plan
    from codex_ml.cli.runs import runs
    from codex_ml.cli.schema import schema
    from codex_ml.cli.track import track
    from codex_ml.cli.verify import verify

    app = _empty_app()
    for command in (
        init,
        check,
        doctor,
        packages,
        plan,
        accept_code,
        verify,
        lineage,
        folds,
        schema,
        merge,
        logs,
        runs,
        track,
    ):
        app.command()(command)
    for module in (compare, evaluate, audit, serve, sweep):
        app.registered_commands += module.app.registered_commands
    app.registered_commands += generate.app.registered_commands
    app.add_typer(hooks.app, name="hook", help="The checks that the pre-commit hooks run.")
    app.add_typer(export.app, name="export")
    app.add_typer(tokenizer.app, name="tokenizer")
    app.add_typer(pack.app, name="pack")
    app.add_typer(ledger.app, name="ledger")
    app.add_typer(params.app, name="params")
    app.add_typer(policy.app, name="policy")
    app.add_typer(plugin_commands.app, name="plugins")
    groups = [group.typer_instance for group in app.registered_groups]
    for each in (each for group in (app, *groups) if group for each in group.registered_commands):
        each.help = help_of(each.callback) if each.callback else None
    return app


def _empty_app() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Train, evaluate and safety-audit language models in a pipeline whose every byte can be traced.\n\n"
        "`dvc repro` runs the pipeline; these commands check it and show what is in it. Exit codes: 0 success, 1 a "
        "check failed, 2 your input is wrong; of `plan` also 3: `dvc repro` has something to do.",
    )
    app.callback(invoke_without_command=True)(_version)
    return app


def app_for(words: list[str]) -> typer.Typer:
    """The command or group that the first word names; `whole_app` where it names none.

    To build all commands takes 28 ms of CPU time, which is a tenth of the time in which --help answers.
    """
    whole, app = whole_app(), _empty_app()
    app.registered_commands = [each for each in whole.registered_commands if _name(each) in words[:1]]
    app.registered_groups = [group for group in whole.registered_groups if group.name in words[:1]]
    return app if app.registered_commands or app.registered_groups else whole


def _name(command: CommandInfo) -> str:
    return command.name or get_command_name(command.callback.__name__ if command.callback else "")


def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
