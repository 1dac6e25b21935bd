"""Give the trackers what stages measured after training: metrics, the model's digest, and references to the artifacts.

The run of a training is closed then. MLflow opens it again. TensorBoard gets a folder inside it, which its pages show
as a group of it. W&B cannot continue an offline run, so it gets a run of its own in the same group. What the stage sent
before is replaced. No file of the pipeline is sent, only its path and digest.

Used by: `codex-ml track`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from codex_ml.core.plugins import load
from codex_ml.train.trackers import PROJECT, group_of, mlflow_run, start_wandb, tag_mlflow


@dataclass(frozen=True)
class StageResults:
    """What a stage measured.

    Attributes:
        kind: of RESULT_KINDS; the first part of the names.
        step: global step of the weights.
        numbers: by name: "evaluation/bits_per_byte", "evaluation/code/HumanEval/pass_at_1".
        texts: `model` (path@sha256:digest), `artifacts` (the same of all data that the stage read), `run` and `commit`
            of the stage, `verdict` of the audit.
        tags: of the training's run; see `codex_ml.core.side_note.run_tags`.
        config: parameters of the training by section, for a tracker that has no run of it.
    """

    kind: str
    step: int
    numbers: dict[str, float]
    texts: dict[str, str]
    tags: dict[str, str]
    config: dict[str, Any]


def add_results(tracker: str, folder: Path, run_name: str, results: StageResults) -> bool:
    """Give results to a tracker; returns False for a plug-in that takes none.

    Args:
        folder: logs of training; the tracker writes below it.
        run_name: name of the training's run, see `open_trackers`.

    Raises:
        Exception: whatever the library raises.
    """
    own: dict[str, Callable[[Path, str, StageResults], None]] = {
        "tensorboard": _to_tensorboard, "mlflow": _to_mlflow, "wandb": _to_wandb
    }  # fmt: skip
    if tracker in own:
        own[tracker](folder / tracker, run_name, results)
        return True
    take = getattr(load("trackers", tracker), "add_results", None)
    if take is None:
        return False
    (folder / tracker).mkdir(parents=True, exist_ok=True)
    texts = {**results.tags, **_named(results)}
    take(folder / tracker, run_name, {"kind": results.kind, "step": results.step, **results.numbers, **texts})
    return True


def _named(results: StageResults) -> dict[str, str]:
    """The texts, each with the kind before its name."""
    return {f"{results.kind}/{name}": text for name, text in results.texts.items()}


def _to_tensorboard(folder: Path, run_name: str, results: StageResults) -> None:
    from torch.utils.tensorboard import SummaryWriter

    group = folder / run_name / results.kind
    if group.exists():
        shutil.rmtree(group)
    writer = cast(Any, SummaryWriter(str(group)))
    for name, value in results.numbers.items():
        writer.add_scalar(name, value, global_step=results.step)
    for name, text in {**results.tags, **_named(results)}.items():
        writer.add_text(f"tags/{name}", text)
    writer.close()


def _to_mlflow(folder: Path, run_name: str, results: StageResults) -> None:
    client, run, metrics, new = mlflow_run(folder, run_name, results.config)
    from mlflow.entities import Metric

    if (metrics / results.kind).exists():
        shutil.rmtree(metrics / results.kind)
    now = int(time.time() * 1000)
    points = [Metric(name, value, now, results.step) for name, value in results.numbers.items()]
    client.log_batch(run, metrics=points)
    tag_mlflow(client, run, {name.replace("/", "."): text for name, text in _named(results).items()})
    if new:  # no training on this machine wrote it
        tag_mlflow(client, run, results.tags)
        client.set_terminated(run, "FINISHED")


def _to_wandb(folder: Path, run_name: str, results: StageResults) -> None:
    options = {"project": PROJECT, "job_type": results.kind, "config": results.texts, **group_of(results.tags)}
    run, end = start_wandb(folder, f"{run_name}-{results.kind}", options)
    try:
        run.log(results.numbers, step=results.step)
        run.finish(exit_code=0)
    finally:
        end()
