"""Evaluate any model on any documents, with the function that the stage `evaluate` calls.

Used by: `codex-ml evaluate`, `codex-ml compare`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from codex_ml.cli.measure_options import naming_options
from codex_ml.cli.model_and_data import ModelChoice, documents_file, is_split, load_subject
from codex_ml.cli.param_changes import Changeable, with_changes
from codex_ml.cli.param_rules import Params, load_params
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_folder
from codex_ml.core.network_guard import refuse_network
from codex_ml.core.progress import track
from codex_ml.core.sections import validate
from codex_ml.evaluate.config import Evaluate, refuse_equal_names
from codex_ml.inference.evaluate_files import Evaluation

PACKED = Path("data/packed")
POLICY = ("data/policy.yaml", "data/detectors.lock", "data/redaction_key")
OPTIONS = {"benchmarks": "use --benchmark FILE"}  # keys that -S does not change, and what to do instead


@dataclass(frozen=True)
class Inputs:
    """What is measured.

    Attributes:
        model: a folder or a GGUF file.
        data, train: documents to ask the model about, and those that the n-gram baseline learns from, if any.
        samples: programs to run for the one benchmark; None: the model writes them.
        kind: of `data` and `train`, as in `ingest.sources`; None: from their names. A split needs no kind.
        window: tokens; None: as the model was trained.
    """

    model: Path
    data: Path
    train: Path | None = None
    samples: Path | None = None
    kind: str | None = None
    window: int | None = None


def evaluate_settings(changes: Sequence[str] | None, benchmarks: Sequence[str] | None, here: Path) -> Evaluate:
    """The section `evaluate` of params.yaml with changes of single keys.

    Args:
        changes: `key=value` with dotted keys below evaluate; the value is YAML.
        benchmarks: files of programming tasks, in any folder, relative to `here`; they replace those of params.yaml.

    Raises:
        UserError: for a change of another form, an unknown key, or a value that is not allowed; for benchmarks of one
            name.
    """
    values: dict[str, Any] = load_params().evaluate.model_dump(mode="json") | {"benchmarks": [], "compare_to": ""}
    values = with_changes(values, changes, Changeable("evaluate", "stride=128", OPTIONS))
    settings = validate(Evaluate, values, name="-S")
    files = tuple(str(here / file) for file in benchmarks or ())
    try:
        refuse_equal_names(files)
    except ValueError as error:
        raise UserError(f"--benchmark: {error}") from None
    return settings.model_copy(update={"benchmarks": files})


def measure(settings: Evaluate, inputs: Inputs, target: Path) -> tuple[Evaluation, list[str]]:
    """Evaluate offline and write the result folder, which appears complete.

    Returns:
        (the result, what to say about its inputs and metrics, one sentence each).

    Raises:
        UserError: for a model, documents or settings that cannot be used.
    """
    go_offline()
    from codex_ml.evaluate.evaluation import evaluate
    from codex_ml.evaluate.executed_code import open_benchmarks
    from codex_ml.evaluate.job import EvaluationData
    from codex_ml.modeling.canary_files import hide_canaries
    from codex_ml.policy.cleaner import load_cleaner

    _refuse_idle_kind(inputs)
    params = load_params()
    redact = hide_canaries(load_cleaner(*map(Path, POLICY)), PACKED)
    open_benchmarks(settings, inputs.samples)  # a mistake in them is told before the documents are scored
    with scratch_folder() as scratch:
        documents = partial(_documents, inputs.kind, scratch, params, redact)
        test, refused = documents(inputs.data, "data")
        train, refused_train = documents(inputs.train, "train") if inputs.train else (None, "")
        choice = ModelChoice(inputs.model, inputs.window, settings.precision)
        subject = load_subject(choice, params.runtime, test, scratch)
        data = EvaluationData(test=test, train=train, redact=redact, samples=inputs.samples)
        follow = partial(track, style=params.runtime.progress)
        with atomic_folder(target) as folder:
            found = evaluate(subject, data, settings, folder, seed=params.seed, track=follow)
    return found, [note for note in (refused, refused_train, *found.notes) if note]


def _refuse_idle_kind(inputs: Inputs) -> None:
    """Refuse a kind that no input takes: a split is read as what it is, a Parquet file."""
    files = [path for path in (inputs.data, inputs.train) if path is not None]
    if inputs.kind not in (None, "parquet") and all(map(is_split, files)):
        raise UserError(f"--kind {inputs.kind}: {files[0]} is a split, which is a Parquet file; leave --kind out")


def _documents(
    kind: str | None, scratch: Path, params: Params, redact: Any, path: Path, option: str
) -> tuple[Path, str]:
    folder = scratch / option
    folder.mkdir()
    with naming_options({"ingest.sources": f"--{option}"}):
        file, refused = documents_file(path, kind, folder, params.runtime, redact)
    return file, f"--{option}: {refused}" if refused else ""


@functools.cache  # a process cannot take the refusal back
def go_offline() -> None:
    """Refuse the network from here on, as stages do."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    sys.addaudithook(refuse_network)
