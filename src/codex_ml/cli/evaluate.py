"""`codex-ml evaluate`: measure any model on any documents, outside the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.measure_options import Benchmarks, Changes, Kind, Window, naming_options, options_of_keys
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.inference.evaluate_files import Evaluation

app = typer.Typer()


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(metavar="MODEL", help="A folder of a model, or a GGUF file.")],
    data: Annotated[
        str, typer.Option(metavar="DATA", help="Documents: a split, or a file or folder that ingest can read.")
    ],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Write the whole result into this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the result that --out holds.")] = False,
    kind: Kind = None,
    train: Annotated[
        str | None, typer.Option(metavar="DATA", help="Documents that the n-gram baseline learns from.")
    ] = None,
    window: Window = None,
    changes: Changes = None,
    benchmark: Benchmarks = None,
    samples: Annotated[
        str | None, typer.Option(metavar="FILE", help="Run these programs for the one --benchmark.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on documents: likelihood, generated text and executed code, every number with an interval.

    On models/model and data/splits/test.parquet it gives the numbers of the stage `evaluate`. The settings are those of
    params.yaml, but programs run only for a --benchmark, and the n-gram baseline needs --train. `codex-ml compare`
    compares the folders that --out writes.

    Example: codex-ml evaluate --model models/model --data held_out.jsonl -S completions.documents=0
    """
    from codex_ml.cli.measure_model import Inputs, evaluate_settings, measure
    from codex_ml.cli.result_target import refuse_target
    from codex_ml.inference.evaluate_files import DETAILS

    with one_line_errors(debug=debug):
        here = go_to_top()
        settings = evaluate_settings(changes, benchmark, here)
        target = here / out if out is not None else None
        if target is not None:
            refuse_target(target, force=force, mark=DETAILS)
        elif force:
            raise UserError("--force replaces the result in the folder of --out; name that folder")
        inputs = Inputs(
            model=here / model,
            data=here / data,
            train=None if train is None else here / train,
            samples=None if samples is None else here / samples,
            kind=kind,
            window=window,
        )
        with scratch_folder() as scratch, naming_options(options_of_keys(changes)):
            found, notes = measure(settings, inputs, target or scratch / "result")
        for note in notes:
            say(f"note: {note}", err=True)
        if json:
            print_json(found.as_json())
            return
        for line in table_lines(found):
            say(line)


def table_lines(found: Evaluation) -> Iterator[str]:
    """The result as text: one line per metric, with its interval."""
    for name, task in found.tasks.items():
        yield f"{name}: {task.items} items, {task.units} units"
        for metric, value in task.metrics.items():
            number = "-" if value.value is None else f"{value.value:.6g}"
            spread = "" if value.low is None else f"[{value.low:.6g}, {value.high:.6g}]"
            spread += " exact" if value.method == "exact" else ""
            yield f"  {metric:<28} {number:>12}  {spread:<26} {value.why or ''}".rstrip()
        if task.lossy:
            yield f"  {task.lossy.reason}"
        yield from (f"  {note}" for note in task.notes)
