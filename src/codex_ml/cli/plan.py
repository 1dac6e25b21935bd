"""`codex-ml plan`: what `dvc repro` would do, why, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.completion import stage_names
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.planning.plan_schema import ReproPlan, StagePlan
    from codex_ml.cli.planning.repro_simulation import Fate
    from codex_ml.core.pipeline import Locked

WORDS = {  # of one stage, and of a number of stages
    "stay": ("stays", "stay"),
    "restore": ("restored", "restored"),
    "run": ("runs", "run"),
    "maybe": ("may run", "may run"),
    "record": ("hashed", "hashed again"),
    "fail": ("FAILS", "cannot run"),
}
SHOWN = 4  # reasons of a stage on the screen


def plan(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            help="Stages; the stages that they need are planned too. Without: all.", autocompletion=stage_names
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train a few real steps in a scratch copy, and estimate the time of train.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what `dvc repro` would do with each stage, why, and what it would cost, without running one.

    A stage stays, is restored from DVC's run cache, runs, or may run: when an earlier stage runs first, only its output
    decides. Exit codes, for a gate in CI: 0 nothing to do, 3 something to do, 1 a stage cannot run, 2 your input is
    wrong.

    Example: change train.lr in params.yaml, then `codex-ml plan train`
    """
    with one_line_errors(debug=debug):
        go_to_top()
        found = _planned(stages or [])
        if probe:
            found = _probed(found)
        if json:
            print_json(found.model_dump(mode="json"))
        else:
            for line in _page(found):
                say(line)
    raise typer.Exit(found.exit_code)


def _planned(targets: list[str]) -> ReproPlan:
    """See `plan`.

    Raises:
        UserError: for an unknown stage, or a file of the project that cannot be read.
        CheckFailed: when DVC would not start.
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.planning.plan_schema import ReproPlan
    from codex_ml.cli.planning.quiet_dvc import quiet_dvc
    from codex_ml.cli.planning.repro_simulation import simulate
    from codex_ml.core.pipeline import LOCK, load_lock, load_pipeline

    load_params()
    known, lock = load_pipeline(), load_lock() if LOCK.exists() else {}
    if unknown := [name for name in targets if name not in known]:
        raise UserError(f"dvc.yaml has no stage {unknown[0]}; its stages: {', '.join(known)}")
    with quiet_dvc("codex-ml plan") as repo:
        steps = [_step(fate, lock) for fate in simulate(repo, targets)]
    actions = {step.action for step in steps}
    return ReproPlan(stages=steps, exit_code=1 if "fail" in actions else 3 if actions - {"stay"} else 0)


def _probed(found: ReproPlan) -> ReproPlan:
    """The plan with what a probe measured, where train runs or may run."""
    if not any(step.stage == "train" and step.action in ("run", "maybe") for step in found.stages):
        return found
    from codex_ml.cli.planning.train_probe import probe_training

    return found.model_copy(update={"probe": probe_training()})


def _step(fate: Fate, lock: dict[str, Locked]) -> StagePlan:
    from codex_ml.cli.planning.change_reasons import reasons
    from codex_ml.cli.planning.last_costs import last_cost
    from codex_ml.cli.planning.made_by import made_by
    from codex_ml.cli.planning.plan_schema import StagePlan

    return StagePlan(
        stage=fate.name,
        action=fate.action,
        in_dry_run=fate.in_dry_run,
        why=list(reasons(fate, lock)),
        made_by=made_by(fate.name, fate.restored) if fate.action == "restore" else "",
        waits_for=list(dict.fromkeys(fate.waits.values())),
        cost=last_cost(fate.name, lock),
    )


def _page(found: ReproPlan) -> Iterator[str]:
    from codex_ml.cli.planning.last_costs import cost_in_words, probe_in_words, total_in_words

    for step in found.stages:
        yield f"{step.stage:<13} {WORDS[step.action][0]:<9} {_comment(step)}".rstrip()
        if step.action in ("run", "maybe") and (words := cost_in_words(step.cost)):
            yield f"{'':<13} {'':<9} last run: {words}"
    counts = {words[1]: sum(step.action == action for step in found.stages) for action, words in WORDS.items()}
    yield "plan: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if found.only_comments:
        yield "only comments, docstrings or layout changed: `codex-ml accept-code` records that, and no stage runs"
    if total := total_in_words(found.stages):
        yield total
    if found.probe:
        yield probe_in_words(found.probe)


def _comment(step: StagePlan) -> str:
    """The reasons, what is restored, and for whom the stage waits."""
    said = [reason.text for reason in step.why if reason.kind != "upstream"]
    more = [f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else []
    parts = ["; ".join([*said[:SHOWN], *more])] if said else []
    if step.made_by:
        parts.append(f"from {step.made_by}")
    if step.action == "maybe":
        parts.append(f"only if {' or '.join(step.waits_for)} writes other bytes")
    return "; ".join(parts)
