"""`codex-ml compare`: is one model better than another, on what, and by how much?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.measure_options import Benchmarks, Changes, Kind, Window, naming_options, options_of_keys
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.bounds import MOST_ITEMS
from codex_ml.core.errors import UserError, one_line_errors

if TYPE_CHECKING:
    from codex_ml.cli.history.named_results import Measure
    from codex_ml.cli.measure_model import Inputs
    from codex_ml.evaluate.config import Evaluate

app = typer.Typer()


@app.command()
def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Result folders, Git revisions, experiments of DVC, `workspace` for reports/evaluate, or models.",
        ),
    ],
    common: Annotated[
        bool, typer.Option("--common", help="Compare the items that both results have, where the items differ.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=0, max=MOST_ITEMS, help="Number of gains and of losses to list per metric.")
    ] = 5,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as one offline page.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Documents on which models are evaluated.")] = None,
    kind: Kind = None,
    window: Window = None,
    changes: Changes = None,
    benchmark: Benchmarks = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare evaluation results on the same items: both values, the difference with its interval, and a p-value.

    Each result is compared with the first. Documents of one group, and samples of one task, count as one unit. Results
    on different test documents are refused, unless --common restricts them to the shared ones. With --data, models are
    evaluated first, with the other options as in `codex-ml evaluate`.

    Example: codex-ml compare HEAD workspace --html comparison.html
    """
    from codex_ml.cli.comparison_text import comparison_lines
    from codex_ml.cli.history.named_results import named_results
    from codex_ml.core.io import write_text
    from codex_ml.core.repository_root import find_top, go_to_top
    from codex_ml.evaluate.comparison import CompareSettings, compare_results

    with one_line_errors(debug=debug):
        if len(results) < 2:
            raise UserError(f"only {results[0]} is named; name two results or more to compare")
        here = Path.cwd()
        page = None if html is None else here / html
        if page is not None and page.is_dir():
            raise UserError(f"--html {html} is a folder; name a file")
        top_folder = find_top(here)
        # outside of a repository there are no revisions, and no policy under which models could be evaluated
        place = go_to_top() if top_folder or data is not None else Path()
        settings = CompareSettings(common=common, top=top)
        options = {"--kind": kind, "--window": window, "-S": changes, "--benchmark": benchmark}
        measure = None
        if data is not None:
            from codex_ml.cli.measure_model import Inputs, evaluate_settings

            inputs = partial(Inputs, data=place / data, kind=kind, window=window)
            measure = _measure(inputs, evaluate_settings(changes, benchmark, place), options_of_keys(changes))
        elif given := [name for name, value in options.items() if value]:
            raise UserError(f"{given[0]} is for models, which are evaluated on --data; name documents")
        with named_results(results, here, top_folder, measure) as opened:
            found = compare_results(opened, settings)
            if page is not None:
                from codex_ml.cli.comparison_page import render_comparison

                write_text(page, render_comparison(found, opened, page.parent))
        if json:
            print_json(found.as_json())
        else:
            for line in comparison_lines(found):
                say(line)


def _measure(inputs: Callable[..., Inputs], settings: Evaluate, options: dict[str, str]) -> Measure:
    """What evaluates a model: a function of its path and the folder for the result."""
    from codex_ml.cli.measure_model import measure

    def of(model: Path, folder: Path) -> None:
        with naming_options(options):
            _, notes = measure(settings, inputs(model=model), folder)
        for note in notes:
            say(f"note: {model}: {note}", err=True)

    return of
