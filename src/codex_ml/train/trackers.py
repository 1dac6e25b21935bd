"""Write the curves also to TensorBoard, MLflow and W&B (`runtime.trackers`), in files on this machine.

The libraries are used directly. accelerate's classes start MLflow and W&B with global functions that record the user,
the command line, the Git remote and the environment. They write TensorBoard's parameters as a second run named by the
time, and they cannot continue a run. Here each tracker gets the parameters of the stage, as in
reports/train/lineage.json, the points, and tags (run id, experiment, seed, commit); nothing else. Environment
variables such as WANDB_MODE and MLFLOW_TRACKING_URI are ignored.

The name of a run is the fingerprint of its recipe. Opening a tracker deletes its points of that run, because the steps
after the last checkpoint are repeated. `Tracker` then gives it the history of the checkpoint. So each step appears
once, even after a kill.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from codex_ml.core.config import Runtime
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.lock import one_at_a_time
from codex_ml.core.packages import install_extra
from codex_ml.core.strict_json import dump_json
from codex_ml.train import random_state
from codex_ml.train.endpoint import Endpoint
from codex_ml.train.plugin_tracker import PluginTracker
from codex_ml.train.tracking import Sink, curves_of

PROJECT = "codex-ml"
MODULES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb", "prometheus": "prometheus_client"}
MLFLOW_BATCH = 1000  # metrics per call, MLflow's own limit
NO_TAGS: Mapping[str, str] = {}
WANDB_TAG = 64  # characters of a tag, W&B's own limit
MLFLOW_VALUE = 6000  # characters of a parameter, MLflow's own limit
RESULT_KINDS = ("evaluation", "audit")  # what other stages add to a run; see train.result_trackers


def missing_extras(runtime: Runtime) -> Iterator[str]:
    """Yield one line per package that `runtime` needs and that is not installed; import none of them."""
    asked: list[tuple[str, str]] = [("trackers", name) for name in runtime.trackers if name in MODULES]
    asked += [("prometheus_port", "prometheus")] if runtime.prometheus_port else []
    for key, name in asked:
        spec = find_spec(MODULES[name])
        if spec is None or spec.origin is None:  # no origin: only a folder of that name, such as W&B creates
            yield f"runtime.{key}: {name} is not installed; {install_extra(name)}"


def open_trackers(
    runtime: Runtime, folder: Path, run_name: str, config: dict[str, Any], *, tags: Mapping[str, str] = NO_TAGS
) -> tuple[Sink, ...]:
    """Open the trackers that `runtime` names; in a run of several processes, only the first one calls this.

    The random numbers that they draw do not change those of the training.

    Args:
        folder: logs of the stage; each tracker writes below it.
        run_name: fingerprint of the recipe: letters, digits and -.
        config: parameters by section, as a JSON value; the trackers show them.
        tags: what the trackers group and find runs by, such as run id, experiment, seed and commit.

    Raises:
        UserError: when a package is not installed, a tracker cannot write to its folder, or the port is taken.
    """
    for problem in missing_extras(runtime):
        raise UserError(problem)
    own: dict[str, Callable[..., Sink]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}
    kinds = {name: partial(kind, tags=tags) for name, kind in own.items()} if tags else own
    opened: list[Sink] = []
    try:
        if runtime.prometheus_port:
            opened.append(Endpoint(runtime.prometheus_port))
        for name in dict.fromkeys(runtime.trackers):
            kind = kinds.get(name) or partial(PluginTracker, name, tags=tags)
            with random_state.unchanged():
                opened.append(_open(kind, folder / name, run_name, config))
    except BaseException:
        for sink in opened:
            sink.close(complete=False)
        raise
    return tuple(opened)


def _open(kind: Callable[..., Sink], folder: Path, run_name: str, config: dict[str, Any]) -> Sink:
    try:
        return kind(folder, run_name, config)
    except (OSError, CheckFailed, UserError):  # these messages say what is wrong
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"runtime.trackers: {folder.name} cannot write to {folder} ({reason}); move that folder away, or leave "
            f"{folder.name} out"
        ) from error


class TensorBoard(Sink):
    """Event files in `folder`/`run_name`, with the parameters for its HPARAMS page."""

    name = "tensorboard"

    def __init__(
        self, folder: Path, run_name: str, config: dict[str, Any], *, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        for old in (folder / run_name).glob("*"):
            if old.is_file():  # its folders hold what other stages measured
                old.unlink()
        self._writer = cast(Any, SummaryWriter(str(folder / run_name)))  # typed as if it never opened its file
        for summary in hparams(_flat(config), {"val/loss": 0.0}):  # only the names of the second are used
            self._writer.file_writer.add_summary(summary)
        for name, value in tags.items():
            self._writer.add_text(f"tags/{name}", value)
        self._writer.flush()

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        for point in points:
            for name, value in curves_of(point):
                self._writer.add_scalar(name, value, global_step=point["step"])
        self._writer.flush()

    def close(self, *, complete: bool) -> None:
        self._writer.close()


class MLflow(Sink):
    """A run in the file store `folder`.

    MLflow 3.17 recommends SQLite and refuses file stores unless MLFLOW_ALLOW_FILE_STORE is set. With the variable it
    still reads and writes them, and `mlflow migrate-filestore` converts them. They need no database library and no
    server.
    """

    name = "mlflow"

    def __init__(
        self, folder: Path, run_name: str, config: dict[str, Any], *, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        self._client, self._run, metrics, new = mlflow_run(folder, run_name, config)
        if not new:
            self._client.update_run(self._run, status="RUNNING")
            for curves in metrics.iterdir():  # the store needs the folder itself
                if curves.name not in RESULT_KINDS:
                    shutil.rmtree(curves)
        tag_mlflow(self._client, self._run, tags)

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, point["step"]) for point in points for name, value in curves_of(point)]
        for start in range(0, len(metrics), MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + MLFLOW_BATCH])

    def close(self, *, complete: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")


def mlflow_run(folder: Path, run_name: str, config: dict[str, Any]) -> tuple[Any, str, Path, bool]:
    """The run with a name in the file store `folder`, which is created where it lacks.

    Returns:
        (client, id of the run, folder of its metrics, whether it is new)
    """
    _own_environment("MLFLOW_", MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_FILE_STORE="true")
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=str(folder.absolute()))
    # without the lock, two runs that start at once could create two experiments of one name in a new store
    with one_at_a_time(folder.with_suffix(".lock"), "train", "opens the same MLflow store"):
        experiment = client.get_experiment_by_name(PROJECT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    found = client.search_runs([experiment_id], f"tags.mlflow.runName = '{run_name}'", max_results=1)
    run = found[0].info.run_id if found else client.create_run(experiment_id, run_name=run_name).info.run_id
    if not found:
        client.log_dict(run, config, "params.json")  # complete; the table below cuts long values
        flat = [Param(name, str(value)[:MLFLOW_VALUE]) for name, value in _flat(config).items()]
        for start in range(0, len(flat), 100):
            client.log_batch(run, params=flat[start : start + 100])
    return client, run, folder / experiment_id / run / "metrics", not found


def tag_mlflow(client: Any, run: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run of MLflow; `codex_ml.` precedes their names."""
    for name, value in tags.items():
        client.set_tag(run, f"codex_ml.{name}", value[:MLFLOW_VALUE])


class Wandb(Sink):
    """An offline run in `folder`; `wandb sync` can send it to a server."""

    name = "wandb"

    def __init__(
        self, folder: Path, run_name: str, config: dict[str, Any], *, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        options = {"project": PROJECT, "config": config, **(group_of(tags) if tags else {})}
        self._run, self._end = start_wandb(folder, run_name, options)

    def log(self, points: Sequence[dict[str, Any]]) -> None:
        for point in points:
            self._run.log(dict(curves_of(point)), step=point["step"])

    def close(self, *, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)
        self._end()


def start_wandb(folder: Path, run_name: str, options: dict[str, Any]) -> tuple[Any, Callable[[], None]]:
    """Start an offline run of W&B in `folder`, in place of an older one of that name.

    Args:
        options: of `wandb.init`.

    Returns:
        the run, and a function that ends W&B's process.
    """
    own = {f"WANDB_{kind}_DIR": str(folder.absolute() / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    _own_environment("WANDB_", WANDB_MODE="offline", WANDB_ERROR_REPORTING="false", **own)
    import wandb

    for old in folder.glob(f"offline-run-*-{run_name}"):
        shutil.rmtree(old)
    settings = wandb.Settings(
        mode="offline",
        root_dir=str(folder.parent.absolute()),  # W&B adds its own name
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        save_code=False,
        host="",
        username="",
        email="",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,  # also asks a metadata service of the cloud for labels
        x_save_requirements=False,
    )
    return wandb.init(id=run_name, name=run_name, settings=settings, **options), wandb.teardown


def group_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """The options of `wandb.init` that group and tag a run: the group is the experiment."""
    return {"group": tags["experiment"], "tags": [f"{name}:{value}"[:WANDB_TAG] for name, value in tags.items()]}


def _own_environment(prefix: str, **settings: str) -> None:
    """Replace a library's environment variables with our settings: only params.yaml decides, and no API key is used."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
    os.environ.update(settings)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} -> {"train.lr": 1}; a list or null becomes its JSON text."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[prefix + name] = value if plain else dump_json(value, indent=None).strip()
    return flat
