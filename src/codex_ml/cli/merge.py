"""`codex-ml merge`: unite two people's work after Git merged it."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import CheckFailed, one_line_errors
from codex_ml.core.repository_root import go_to_top


def merge(
    commits: Annotated[
        list[str] | None, typer.Argument(help="Other commits whose lines of the ledger are missing here.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Unite two people's work after `git merge`, rebase, cherry-pick, stash pop or `dvc exp apply`.

    The split ledger gets the lines of all sides. Conflicting results are reset to those of HEAD, and a rerun updates
    them. Conflicts that only you can resolve are listed: parameters, code, pointers to data. It exits with 1 while any
    are left. A second run changes nothing. docs/teams.md shows a whole merge.

    Example: git merge theirs; codex-ml merge && dvc repro
    """
    from dataclasses import asdict

    from codex_ml.cli.history.unite import merge_report, unite

    with one_line_errors(debug=debug):
        go_to_top()
        done = unite(commits or [])
        if json:
            print_json(asdict(done))
        else:
            for line in merge_report(done):
                say(line)
        if done.left:
            raise CheckFailed(
                f"{len(done.left)} file{' is' if len(done.left) == 1 else 's are'} left for you to resolve"
            )
