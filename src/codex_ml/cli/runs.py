"""`codex-ml runs`: what ran when, with which result and cost."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.completion import stage_names
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.bounds import MOST_ITEMS
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top


def runs(
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only runs of this stage.", autocompletion=stage_names)
    ] = None,
    last: Annotated[int, typer.Option("--last", min=1, max=MOST_ITEMS, help="How many runs, the newest ones.")] = 20,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the runs of stages: when, result, seconds, peak memory, and why a run failed.

    It reads the logs, also those of experiments. A killed run has a start and no end. Times are UTC.

    $ codex-ml runs --stage train
    """
    from codex_ml.cli.log_options import checked_stage
    from codex_ml.cli.run_history import RunList, runs_of

    with one_line_errors(debug=debug):
        go_to_top()
        found = runs_of(checked_stage(stage))[-last:]
        if json:
            print_json(RunList(runs=found).as_json())
            return
        if not found:
            say("runs: the logs hold no run; `dvc repro` runs the stages")
        for run in found:
            time = run.started[:19].replace("T", " ")
            seconds = "" if run.seconds is None else _seconds(run.seconds)
            memory = "" if run.peak_memory_mb is None else f"{run.peak_memory_mb:,.0f} MiB"
            line = f"{run.run}  {time}  {run.stage:<12} {run.result:<11} {seconds:>14} {memory:>12}"
            notes = [note for note in (run.experiment, run.message) if note]
            say(one_row(f"{line}  {'; '.join(notes)}"))


def _seconds(seconds: float) -> str:
    from codex_ml.core.progress import duration

    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def one_row(text: str) -> str:
    """A text as one row: line breaks are spaces, none at the end."""
    return " ".join(text.splitlines()).rstrip()
