"""`codex-ml folds`: cross-validation, each fold as a DVC experiment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.completion import param_settings
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.bounds import MOST_FOLDS
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.cross_validation import Fold, Spread


def folds(
    count: Annotated[
        int | None, typer.Argument(max=MOST_FOLDS, help="Number of folds; without it, `split.folds`.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set-param", "-S", help="Another parameter, such as train.lr=1e-3.", autocompletion=param_settings
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run every fold of a cross-validation as a DVC experiment, and print the mean and the spread of the metrics.

    The documents outside the test set are dealt into folds. Each experiment validates on one fold and trains on the
    others; the test set is the same in all. A fold that is finished on this commit is not run again, so after an
    interruption the same command goes on. The experiments stay: `dvc exp show` lists them, `dvc exp apply NAME` takes
    one, `dvc exp remove NAME` forgets one.

    Example: codex-ml folds 5 -S train.max_steps=300
    """
    from dataclasses import asdict

    from codex_ml.cli.cross_validation import (
        FOLDER,
        Fold,
        FoldsResult,
        clean_head,
        finished,
        metrics_of,
        run_fold,
        spread,
    )
    from codex_ml.cli.sweeping.ending_signals import ended_by_signals
    from codex_ml.cli.sweeping.experiment_run import command_lock
    from codex_ml.cli.sweeping.killed_trial import put_back

    with one_line_errors(debug=debug), ended_by_signals("the cross-validation"):
        go_to_top()
        total = _count(count)
        given = _checked(changes or [])
        with command_lock(FOLDER) as lock:
            put_back(FOLDER)
            head = clean_head()  # once no fold runs: DVC changes params.yaml while it sets one up
            plan = [Fold(number, total, given) for number in range(total)]
            done = {fold: finished(fold, head) for fold in plan}
            started, ran = time.monotonic(), 0
            for fold in plan:
                if done[fold]:
                    say(f"fold {fold.number} of {total}: done before, experiment {fold.name}", err=True)
                    continue
                left = sum(commit is None for commit in done.values())
                rest = f", about {(time.monotonic() - started) / ran * left / 60:.0f} min left" if ran else ""
                say(f"fold {fold.number} of {total}: experiment {fold.name}{rest}", err=True)
                done[fold] = run_fold(fold, head, lock, to_stderr=json)
                ran += 1
        results = [metrics_of(commit) for commit in done.values() if commit]
        table = spread(results)
        if json:
            print_json(asdict(FoldsResult([fold.name for fold in plan], table)))
            return
        for line in _lines(plan, table):
            say(line)


def _count(given: int | None) -> int:
    from codex_ml.cli.param_rules import load_params

    total = load_params().split.folds if given is None else given
    if given is None and total == 0:
        raise UserError("split.folds is 0: say how many folds, such as `codex-ml folds 5`, or set split.folds")
    if total < 2:
        raise UserError(f"{total} folds: expected 2 to {MOST_FOLDS}")
    return total


def _checked(changes: list[str]) -> tuple[str, ...]:
    for change in changes:
        key, equals, _ = change.partition("=")
        key = key.strip("+~")
        if not equals or not key:
            raise UserError(f"-S {change}: expected key=value, such as train.lr=1e-3")
        if key in ("split.folds", "split.fold"):
            raise UserError(f"-S {change}: the command sets {key} itself; give the number of folds as its argument")
        if key.startswith("runtime."):
            raise UserError(f"-S {change}: a key of runtime changes no result; set it in params.yaml and commit that")
    return tuple(sorted(changes))


def _lines(plan: list[Fold], table: dict[str, Spread]) -> list[str]:
    """The table as text: one row per metric, one column per fold."""
    head = ["metric", "mean", "deviation", *(f"fold {fold.number}" for fold in plan)]
    rows = [[name, _cell(row.mean), _cell(row.deviation), *map(_cell, row.values)] for name, row in table.items()]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    aligned = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in columns)
        for columns in (enumerate(zip(row, widths, strict=True)) for row in [head, *rows])
    ]
    note = (
        "deviation: standard deviation over the folds. Folds share train documents, so it is not an interval of the "
        "mean."
    )
    return [*aligned, "", note]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
