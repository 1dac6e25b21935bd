"""`codex-ml lineage`: what a result was made from."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.completion import result_paths
from codex_ml.cli.options import Debug, Json, in_columns, print_json, relative_to_top
from codex_ml.cli.output import say
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top


def lineage(
    path: Annotated[
        str,
        typer.Argument(
            help="A result such as models/model or reports/evaluate/metrics.json.", autocompletion=result_paths
        ),
    ],
    rev: Annotated[str | None, typer.Option(help="A commit, branch, tag or experiment of DVC.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Print every file, the code and the parameters too.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what a result was made from, stage by stage, at any Git revision or in an experiment.

    It shows the hash of the result, the commit, and what each stage wrote and read. It exits with 1 when dvc.lock holds
    stages of several runs, and names the first two that do not belong together. With --json each stage has the record
    of its start, or null where neither Git nor DVC's cache holds it; `dvc fetch --all-commits` fetches it. In the
    workspace it also shows run, commit and machine of each stage that ran here (docs/watch.md).

    Example: codex-ml lineage models/model --rev v1.0
    """
    from json import dumps

    from codex_ml.cli.history.stage_chain import chain_at, chain_summary
    from codex_ml.core.side_note import read_side_note

    with one_line_errors(debug=debug):
        place = relative_to_top(path, go_to_top())
        steps = chain_at(place, rev)
        if json:
            notes = [read_side_note(step.spec.name) if rev is None else None for step in steps]
            print_json([step.as_json(note) for step, note in zip(steps, notes, strict=True)])
            return
        for line in chain_summary(place, steps, rev):
            say(line)
        for step in steps if whole else ():
            say()
            say(f"{step.spec.name}: {step.spec.desc}")
            for role, files in (("out", step.locked.outs), ("dep", step.locked.deps)):
                for name, md5 in files.items():
                    say(in_columns("", role, name, md5))
            params = dumps(step.locked.params, sort_keys=True, ensure_ascii=False)
            say(in_columns("", "params", params, ""))
