"""`codex-ml compare`: is one model better than another, on what, and by how much?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.options import Debug, Json
from codex_ml.core.errors import UserError, one_line_errors


def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Result folders, Git revisions, experiments of DVC, or `workspace` for reports/evaluate.",
        ),
    ],
    common: Annotated[
        bool, typer.Option("--common", help="Compare the items that both results have, where the items differ.")
    ] = False,
    top: Annotated[int, typer.Option(min=0, help="Number of gains and of losses to list per metric.")] = 5,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as one offline page.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare evaluation results on the same items: both values, the difference with its interval, and a p-value.

    Each result is compared with the first. Documents of one group, and samples of one task, count as one unit. Results
    on different test documents are refused, unless --common restricts them to the shared ones.
    """
    from codex_ml.cli.comparison_text import comparison_lines
    from codex_ml.cli.history.named_results import named_results
    from codex_ml.core.io import write_text
    from codex_ml.core.repository_root import find_top
    from codex_ml.core.strict_json import dump_json
    from codex_ml.evaluate.comparison import CompareSettings, compare_results

    with one_line_errors(debug=debug):
        if len(results) < 2:
            raise UserError(f"only {results[0]} is named; name two results or more to compare")
        here = Path.cwd()
        page = None if html is None else here / html
        if page is not None and page.is_dir():
            raise UserError(f"--html {html} is a folder; name a file")
        top_folder = find_top(here)
        if top_folder is not None:
            os.chdir(top_folder)
        settings = CompareSettings(common=common, top=top)
        with named_results(results, here, top_folder) as opened:
            found = compare_results(opened, settings)
            if page is not None:
                from codex_ml.cli.comparison_page import render_comparison

                write_text(page, render_comparison(found, opened, page.parent))
        if json:
            typer.echo(dump_json(found.as_json()), nl=False)
        else:
            for line in comparison_lines(found):
                typer.echo(line)
