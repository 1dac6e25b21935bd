"""`codex-ml logs`: what the stages logged, of one run or all, as text or JSON, also while they run."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.completion import one_of, run_ids, stage_names
from codex_ml.cli.options import Debug, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top


def logs(
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only lines of this stage.", autocompletion=stage_names)
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Only lines of this run, or `last` for the newest.", autocompletion=run_ids),
    ] = None,
    level: Annotated[
        str,
        typer.Option(
            "--level",
            help="Lowest level: debug, info, warning or error.",
            autocompletion=one_of("debug", "info", "warning", "error"),
        ),
    ] = "info",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON, one object per line.")] = False,
    debug: Debug = False,
) -> None:
    """Print what the stages logged, in the order of time. Times are UTC.

    $ codex-ml logs --stage train --run last
    $ codex-ml logs --level warning --follow
    """
    from codex_ml.cli.log_lines import follow_lines, past_lines, shown
    from codex_ml.cli.log_options import checked_level, checked_run, checked_stage
    from codex_ml.cli.run_history import runs_of
    from codex_ml.core.events import LEVELS

    with one_line_errors(debug=debug):
        go_to_top()
        stage, lowest = checked_stage(stage), checked_level(level)
        if run == "last":
            run = next((found.run for found in reversed(runs_of(stage))), None)
        wanted = checked_run(run)
        count = 0
        for line in follow_lines(stage) if follow else past_lines(stage):
            if LEVELS[line.level] >= lowest and (wanted is None or line.run.startswith(wanted)):
                if json:
                    print_json(line.as_json(), indent=None)
                else:
                    say(shown(line))
                count += 1
        if not count:
            say("logs: no line of this stage, run and level; `codex-ml runs` lists the runs", err=True)
