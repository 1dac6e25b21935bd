"""`codex-ml evaluate`: measure any model on any documents, outside the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codex_ml.cli.options import Debug, Json
from codex_ml.core.errors import UserError, one_line_errors, safe_text
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.evaluate.config import Evaluate
    from codex_ml.inference.evaluate_files import Evaluation


@dataclass(frozen=True)
class Inputs:
    """What the user typed: paths of the model and of the documents, their kind, and the window."""

    model: Path
    data: Path
    train: Path | None
    kind: str | None
    window: int | None


POLICY = ("data/policy.yaml", "data/detectors.lock", "data/redaction_key")


def evaluate(
    model: Annotated[str, typer.Option(help="A folder of a model, or a GGUF file.")],
    data: Annotated[str, typer.Option(help="Documents: a file or folder of any kind that ingest reads, or a split.")],
    out: Annotated[str | None, typer.Option(help="Write the whole result into this new folder.")] = None,
    kind: Annotated[str | None, typer.Option(help="As in ingest.sources; else from the name of the data.")] = None,
    train: Annotated[str | None, typer.Option(help="Documents that the n-gram baseline learns from.")] = None,
    window: Annotated[int | None, typer.Option(min=2, help="Tokens per window.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="A key of evaluate, such as stride=128.")
    ] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="A file of programming tasks, in any place.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on documents: likelihood, generated text and executed code, every number with an interval.

    On models/model and data/splits/test.parquet it gives the numbers of the stage `evaluate`. The settings are those of
    params.yaml, except that benchmarks are only run if --benchmark names them. With --out the result can be compared:
    codex-ml compare A B.

    Example: codex-ml evaluate --model models/model --data held_out.jsonl -S completions.documents=0
    """
    from tempfile import TemporaryDirectory

    from codex_ml.core.strict_json import dump_json

    with one_line_errors(debug=debug):
        here = Path.cwd()
        go_to_top()
        settings = settings_of(changes or [], [str(here / path) for path in benchmark or []])
        target = here / out if out else None
        if target:
            _refuse_used(target)
        paths = Inputs(here / model, here / data, here / train if train else None, kind, window)
        with TemporaryDirectory(prefix="codex-ml-evaluate-") as scratch:
            found, notes = run(settings, paths, target, Path(scratch))
        for note in notes:
            typer.echo(safe_text(f"note: {note}"), err=True)
        if json:
            typer.echo(dump_json(found.as_json()), nl=False)
            return
        for line in table_lines(found):
            typer.echo(safe_text(line))


def settings_of(changes: list[str], benchmarks: list[str]) -> Evaluate:
    """The section `evaluate` of params.yaml with changes of single keys.

    Args:
        changes: `key=value` with dotted keys below evaluate; the value is YAML.

    Raises:
        UserError: for a change of another form, an unknown key, or a value that is not allowed.
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.core.sections import validate
    from codex_ml.core.yaml import parse_yaml
    from codex_ml.evaluate.config import Evaluate

    values: dict[str, Any] = load_params().evaluate.model_dump(mode="json") | {"benchmarks": [], "compare_to": ""}
    for change in changes:
        key, equals, value = change.partition("=")
        *folders, leaf = key.removeprefix("evaluate.").split(".")
        place: Any = values
        for folder in folders:
            place = place.get(folder) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or leaf not in place:
            raise UserError(f"-S {change}: expected key=value with a key of evaluate, such as stride=128")
        place[leaf] = parse_yaml(value, f"-S {change}") if value else ""
    settings = validate(Evaluate, values, name="-S")
    return settings.model_copy(update={"benchmarks": tuple(benchmarks)})


def _refuse_used(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder; name a new folder for --out")


def run(settings: Evaluate, paths: Inputs, target: Path | None, scratch: Path) -> tuple[Evaluation, list[str]]:
    """Evaluate and write the result folder; return the result, and what to say about its inputs.

    Args:
        target: None: the folder goes into `scratch`.
        scratch: an existing folder for temporary files.
    """
    import os
    from functools import partial

    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    from codex_ml.cli.model_and_data import ModelChoice, documents_file, load_subject
    from codex_ml.cli.param_rules import load_params
    from codex_ml.core.io import atomic_folder
    from codex_ml.core.progress import track
    from codex_ml.evaluate.evaluation import evaluate as evaluate_model
    from codex_ml.evaluate.job import EvaluationData
    from codex_ml.policy.cleaner import load_cleaner

    params = load_params()
    folders = {name: scratch / name for name in ("test", "train", "model")}
    for folder in folders.values():
        folder.mkdir()
    test, refused = documents_file(paths.data, paths.kind, folders["test"], params.runtime)
    train, refused_train = None, ""
    if paths.train:
        train, refused_train = documents_file(paths.train, paths.kind, folders["train"], params.runtime)
    choice = ModelChoice(paths.model, paths.window, settings.precision)
    subject = load_subject(choice, params.runtime, test, folders["model"])
    data = EvaluationData(test=test, train=train, redact=load_cleaner(*map(Path, POLICY)))
    follow = partial(track, style=params.runtime.progress)
    with atomic_folder(target or scratch / "result") as folder:
        found = evaluate_model(subject, data, settings, folder, seed=params.seed, track=follow)
    return found, [note for note in (refused, refused_train, *found.notes) if note]


def table_lines(found: Evaluation) -> Iterator[str]:
    """The result as text: one line per metric, with its interval."""
    for name, task in found.tasks.items():
        yield f"{name}: {task.items} items, {task.units} units"
        for metric, value in task.metrics.items():
            number = "-" if value.value is None else f"{value.value:.6g}"
            spread = "" if value.low is None else f"[{value.low:.6g}, {value.high:.6g}]"
            yield f"  {metric:<28} {number:>12}  {spread:<26} {value.why or ''}".rstrip()
        if task.lossy:
            yield f"  {task.lossy.reason}"
        yield from (f"  {note}" for note in task.notes)
