"""`codex-ml track`: send the metrics of evaluation and safety audit to the trackers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from codex_ml.cli.completion import one_of
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top


def track(
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            help="Only this stage: evaluate or safety_audit. Default: both.",
            autocompletion=one_of("evaluate", "safety_audit"),
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Send the metrics of evaluation and safety audit to the trackers of runtime.trackers, offline.

    The two stages do this themselves. Call it after you added a tracker, or after one failed. Each tracker also gets
    the digests of the model and of the data; no file is sent.

    $ codex-ml track --stage evaluate
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.tracked_results import KINDS, send
    from codex_ml.core.network_guard import refuse_network
    from codex_ml.train.trackers import missing_extras

    with one_line_errors(debug=debug):
        go_to_top()
        if stage is not None and stage not in KINDS:
            raise UserError(f"--stage: expected {' or '.join(KINDS)}; found {stage[:60]!r}")
        runtime = load_params().runtime
        if not runtime.trackers:
            raise UserError("params.yaml: runtime.trackers names no tracker; docs/tracking.md lists them")
        for problem in missing_extras(runtime):
            raise UserError(problem)
        sys.addaudithook(refuse_network)
        found = send([stage] if stage else list(KINDS), runtime.trackers)
        if json:
            print_json(found.model_dump(mode="json"))
        for sent in () if json else found.sent:
            took = f"{sent.numbers} numbers in the run {found.run}" if sent.numbers else "it takes no results"
            what = sent.failed or took
            say(f"{sent.stage}  {sent.tracker}: {what}")
        failed = [f"{sent.stage} to {sent.tracker}: {sent.failed}" for sent in found.sent if sent.failed]
        if failed:
            raise CheckFailed(f"not all metrics were sent; {'; '.join(failed)}")
