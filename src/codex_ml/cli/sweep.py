"""`codex-ml sweep`: try many settings, each as a DVC experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.completion import DEFAULT_METRIC, metrics_to_rank, one_of, param_settings
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.sweeping.search_space import SweepAxis
    from codex_ml.cli.sweeping.sweep_journal import SweepSettings

METRIC = f"{DEFAULT_METRIC}:min"
SWEEPS = Path("logs/sweeps")
app = typer.Typer()


@app.command()
def sweep(
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=DISTRIBUTION",
            help="uniform(LOW,HIGH), loguniform(LOW,HIGH), int(LOW,HIGH), choice(A,B,...), or one value.",
            autocompletion=param_settings,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="grid, random, sobol, or tpe (extra `sweep`).", autocompletion=one_of("grid", "random", "sobol", "tpe")
        ),
    ] = "sobol",
    trials: Annotated[int | None, typer.Option(min=1, max=10_000, help="Number of trials; a grid has its own.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, max=60 * 24 * 366, help="Start no trial after the trials took this long.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="STAGE.NAME:min|max", help="A number of reports/STAGE/metrics.json.", autocompletion=metrics_to_rank
        ),
    ] = METRIC,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the proposals; the trials keep the seed of params.yaml.")
    ] = 1,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Stop a trial whose validation loss is worse than the median.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begins the name of each experiment.", show_default="by settings")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Try many settings, one after the other, each as a DVC experiment; print the trials from the best to the worst.

    The same settings and seed give the same trials. A sweep that was interrupted or killed goes on when you run the
    same command again, and runs no trial twice; more --trials continue the list. A trial runs the pipeline up to the
    stage of the metric. `dvc exp apply NAME` and `dvc repro` take the best one. docs/sweep.md has more.

    Example: codex-ml sweep --set 'train.lr=loguniform(1e-4,1e-2)' --set 'model.layers=choice(2,4)' --trials 16
    """
    from codex_ml.cli.cross_validation import head_commit, refuse_changes
    from codex_ml.cli.sweeping.ending_signals import ended_by_signals
    from codex_ml.cli.sweeping.experiment_run import command_lock
    from codex_ml.cli.sweeping.killed_trial import put_back
    from codex_ml.cli.sweeping.search_space import read_axes
    from codex_ml.cli.sweeping.study import Budget, Study
    from codex_ml.cli.sweeping.sweep_journal import Journal
    from codex_ml.cli.sweeping.sweep_result import SweepResult, best_of, table_of, write_result

    with one_line_errors(debug=debug), ended_by_signals("the sweep"):
        go_to_top()
        axes = read_axes(settings)
        size = _budget(method, axes, trials, minutes)
        known = {"space": settings, "method": method, "metric": metric, "seed": seed, "stop_early": stop_early}
        plan = _settings(name, head=head_commit(), **known)
        folder = SWEEPS / plan.name
        with command_lock(folder) as lock:
            put_back(folder)
            refuse_changes(runs="trials")  # once no trial runs: DVC changes params.yaml while it sets one up
            study = Study(plan, axes, Journal(folder, plan), lock=lock)
            study.refuse_edited()
            if not study.journal.trials:
                study.refuse_impossible(size or 1)
            study.run(Budget(size, None if minutes is None else 60 * minutes))
            ended = [study.journal.trials[number] for number in sorted(study.journal.trials)]
            best = best_of(ended, plan.direction)
            found = SweepResult(
                settings=plan, trials=ended, best=best.number if best else None, folder=folder.as_posix()
            )
            write_result(found, axes, folder)
        if json:
            print_json(found.model_dump(mode="json"))
            return
        for line in table_of(found, axes):
            say(line)
        count = "1 trial" if len(ended) == 1 else f"{len(ended)} trials"
        say()
        say(f"{count}; {folder}: journal.ndjson, trials.csv, trials.svg")
        if best and best.commit:
            say(f"best: `dvc exp apply {best.experiment}`, then `dvc repro`")


def _budget(method: str, axes: tuple[SweepAxis, ...], trials: int | None, minutes: float | None) -> int | None:
    """The number of trials; None: until the minutes are over."""
    from codex_ml.cli.sweeping.trial_proposals import METHODS, grid_size, require_optuna

    if method not in METHODS:
        raise UserError(f"--method {method}: expected {', '.join(METHODS)}")
    if method == "tpe":
        require_optuna()
    if method == "grid":
        return min(grid_size(axes), trials or grid_size(axes))
    if trials is None and minutes is None:
        raise UserError(f"--method {method} never ends by itself; give --trials, --minutes, or both")
    return trials


def _settings(name: str | None, *, head: str, **known: object) -> SweepSettings:
    import hashlib
    import re

    from codex_ml.cli.sweeping.metric_number import refuse_unknown_number
    from codex_ml.cli.sweeping.sweep_journal import SweepSettings
    from codex_ml.core.pipeline import load_pipeline
    from codex_ml.core.strict_json import dump_json

    metric, _, direction = str(known["metric"]).rpartition(":")
    stage, _, leaf = metric.partition(".")
    if direction not in ("min", "max") or not leaf:
        raise UserError(f"--metric {known['metric']}: expected STAGE.NAME:min or STAGE.NAME:max, such as {METRIC}")
    stages = load_pipeline()
    with_metrics = [each for each, spec in stages.items() if f"reports/{each}/metrics.json" in spec.outs]
    if stage not in with_metrics:
        raise UserError(
            f"--metric {metric}: no stage {stage} writes metrics; stages that do: {', '.join(with_metrics)}"
        )
    refuse_unknown_number(stage, leaf)
    digest = hashlib.sha256(dump_json({**known, "head": head}).encode()).hexdigest()[:6]
    name = f"sweep-{digest}" if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", name):
        raise UserError(f"--name {name}: expected up to 41 letters, digits, - and _")
    return SweepSettings.model_validate(
        {"name": name, "space": known["space"], "method": known["method"], "metric": metric, "direction": direction}
        | {"seed": known["seed"], "stop_early": known["stop_early"], "head": head}
    )
