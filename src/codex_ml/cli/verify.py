"""`codex-ml verify`: the hashes of a result, back to the downloaded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from codex_ml.cli.completion import result_paths
from codex_ml.cli.options import Debug, Json, in_columns, print_json, relative_to_top, warn_of_lines_not_compared
from codex_ml.cli.output import say
from codex_ml.core.errors import CheckFailed, one_line_errors
from codex_ml.core.repository_root import go_to_top


def verify(
    path: Annotated[
        str | None,
        typer.Argument(help="A result such as models/model; all results when left out.", autocompletion=result_paths),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Recompute every hash from a result back to data/sample.lock; compare it with dvc.lock and the stages' records.

    It prints the chain, and exits with 1 at the first hash that differs, which it names. A line `accepted` names a file
    of code that is not the one that ran, because of an edit of comments, docstrings or layout. It
    also names code that no chain can hold: a file that Python could import in place of a module, or that runs at its
    start.

    Example: codex-ml verify models/model
    """
    from dataclasses import asdict

    from codex_ml.cli.checks.hash_chain import verification, verified_links
    from codex_ml.cli.checks.outside_code import start_code_notes

    with one_line_errors(debug=debug):
        here = go_to_top()
        warn_of_lines_not_compared()
        place = None if path is None else relative_to_top(path, here)
        if json:
            whole = verification(place)
            _warn(start_code_notes(dict.fromkeys(link.stage for link in whole.links)))
            print_json(asdict(whole), indent=None)
            if whole.problem:
                raise CheckFailed(whole.problem)
            return
        count, accepted, stages = 0, set[str](), dict[str, None]()
        for link in verified_links(place):
            count += 1
            stages[link.stage] = None
            accepted |= {link.path} if link.role == "accepted" else set()
            say(in_columns(link.stage, link.role, link.path, link.md5))
        _warn(start_code_notes(stages))
        say(f"verify: {count} links hold")
        if accepted:
            say(f"verify: files of code that ran with other comments, docstrings or layout: {len(accepted)}")


def _warn(notes: Iterator[str]) -> None:
    for note in notes:
        say(f"warning: {note}", err=True)
