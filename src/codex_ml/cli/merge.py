"""`codex-ml merge`: unite two people's work after Git merged it."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.options import Debug, Json
from codex_ml.core.errors import CheckFailed, one_line_errors, safe_text
from codex_ml.core.top import go_to_top


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

    from codex_ml.cli.history.unite import merge_report, unite
    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        go_to_top()
        done = unite(commits or [])
        if json:
            typer.echo(dump_json(asdict(done)), nl=False)
        else:
            for line in merge_report(done):
                typer.echo(safe_text(line))
        if done.left:
            raise CheckFailed(
                f"{len(done.left)} file{' is' if len(done.left) == 1 else 's are'} left for you to settle"
            )
