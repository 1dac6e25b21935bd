"""TensorBoard, MLflow and W&B hold each step once, stay on this machine, and get only parameters and curves.

Against small fakes, so that something runs everywhere; the libraries themselves are read in test_tracker_libraries.py.
"""

from __future__ import annotations

import importlib.machinery
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from codex_ml.core import side_note
from codex_ml.core.config import Runtime
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.events import run_id
from codex_ml.core.packages import install_extra
from codex_ml.core.plugins import registered
from codex_ml.core.side_note import SideNote, run_tags
from codex_ml.core.strict_json import parse_json
from codex_ml.train import trackers
from codex_ml.train.result_trackers import StageResults, add_results
from codex_ml.train.timings import Timings
from codex_ml.train.tracking import Sink, Tracker

RUN = "0123456789abcdef"
CONFIG = {"seed": 1, "train": {"lr": 0.001, "schedule": "cosine"}, "model": {"lora": {"targets": []}, "path": ""}}
POINTS = [
    {"step": 5, "train/loss": 3.25, "train/lr": 0.001, "document": "not for trackers"},
    {"step": 10, "train/loss": 2.5, "train/lr": 0.0005},
    {"step": 10, "val/loss": 2.75},
]


class Remembering(Sink):
    def __init__(self, name="remembering", *, fails_at=None):
        self.name, self.fails_at, self.got = name, fails_at, []

    def _take(self, *what):
        self.got.append(what)
        if len(self.got) == self.fails_at:
            raise OSError("no space")

    def log(self, points):
        self._take("log", points)

    def observe(self, values):
        self._take("observe", values)

    def close(self, *, complete):
        self._take("close", complete)


@pytest.fixture
def track(tmp_path):
    return lambda history, *extra: Tracker(
        tmp_path / "curves", Timings(tmp_path / "events.ndjson"), history, extra=extra
    )


def test_trackers_get_the_history_at_once_and_then_each_point_but_only_its_curves(track):
    sink = Remembering()
    first = {"step": 5, "train/loss": 3.25, "train/lr": 0.001, "train/embedding_lr": 0.25}
    tracker = track([{**first, "document": "not for trackers"}, POINTS[1]], sink)
    tracker.log(POINTS[2])
    tracker.event(step=10, tokens_per_second=900.0)
    tracker.observe({"gpus": []})
    tracker.finish({}, complete=False)
    assert sink.got == [
        ("log", [first, POINTS[1]]),
        ("log", [POINTS[2]]),
        ("observe", {"step": 10, "tokens_per_second": 900.0}),
        ("observe", {"gpus": []}),
        ("close", False),
    ]


def test_a_run_without_history_tells_trackers_nothing(track):
    sink = Remembering()
    track([], sink)
    assert sink.got == []


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_tracker_that_fails_is_told_and_left_out_and_the_others_go_on(track, workspace, tmp_path, caplog, fails_at):
    sick, well = Remembering("sick", fails_at=fails_at), Remembering()
    tracker = track(POINTS[:1], sick, well)
    tracker.log(POINTS[1])
    tracker.event(step=10)
    tracker.finish({})
    assert len(sick.got) == fails_at
    assert [what for what, _ in well.got if what != "observe"] == ["log", "log", "close"]
    assert caplog.messages == ["train: sick failed and gets no more points, the run goes on (OSError: no space)"]
    events = [parse_json(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()]
    assert [event["failed"] for event in events if "failed" in event] == ["OSError: no space"]


def test_trackers_do_not_change_the_curves(track, tmp_path):
    def files():
        return {file: file.read_bytes() for file in (tmp_path / "curves").rglob("*") if file.is_file()}

    written = []
    for extra in ((), (Remembering(), Remembering("sick", fails_at=1))):
        tracker = track(POINTS[:1], *extra)
        tracker.log(POINTS[1])
        tracker.finish({"best_step": 10})
        written.append(files())
    assert written[0] == written[1] != {}


class Drawing:
    """A tracker of a package that draws from every generator, or from none."""

    def __init__(self, *, draws):
        self.draws, self.calls = draws, []

    def __call__(self, folder, run_name, config):
        self._take("open")
        return self

    def tag(self, tags):
        self._take("tag")

    def log(self, points):
        self._take("log")

    def close(self, *, complete):
        self._take("close")

    def _take(self, call):
        self.calls.append(call)
        if self.draws:
            torch.rand(3), random.random(), np.random.rand(3)  # noqa: NPY002


@pytest.mark.usefixtures("one_thread")
def test_a_tracker_that_draws_random_numbers_changes_no_weight_and_no_curve(recipe, tmp_path):
    """The model has dropout."""
    results, calls = [], []
    for name, draws in (("still", False), ("draws", True)):
        recipe.seed_everything()
        tracker = Drawing(draws=draws)
        with registered("trackers", "mine", tracker):
            model, best = recipe.train(tmp_path / name, trackers=("mine",))
        weights = [parameter.detach().numpy().tobytes() for parameter in model.parameters()]
        results.append((weights, best, torch.rand(2).tolist(), random.random(), np.random.rand(2).tolist()))  # noqa: NPY002
        calls.append(tracker.calls)
    assert results[0] == results[1]
    assert calls[0] == calls[1]
    assert (calls[1][:3], calls[1][-1]) == (["open", "tag", "log"], "close")


@pytest.fixture
def installed(monkeypatch):
    """Which modules find_spec finds."""
    found = {}
    monkeypatch.setattr(trackers, "find_spec", found.get)
    return found


ALL = Runtime(trackers=("tensorboard", "mlflow", "wandb"), prometheus_port=9400)


def test_what_is_asked_for_and_not_installed_is_told_with_its_extra(installed):
    assert list(trackers.missing_extras(Runtime())) == []
    assert list(trackers.missing_extras(ALL)) == [
        f"runtime.trackers: tensorboard is not installed; {install_extra('tensorboard')}",
        f"runtime.trackers: mlflow is not installed; {install_extra('mlflow')}",
        f"runtime.trackers: wandb is not installed; {install_extra('wandb')}",
        f"runtime.prometheus_port: prometheus is not installed; {install_extra('prometheus')}",
    ]
    for name in trackers.MODULES.values():
        installed[name] = importlib.machinery.ModuleSpec(name, None, origin="somewhere")
    assert list(trackers.missing_extras(ALL)) == []


def test_a_folder_with_the_name_of_a_library_is_not_the_library(installed):
    installed["wandb"] = importlib.machinery.ModuleSpec("wandb", None, is_package=True)  # as Python finds ./wandb
    (problem,) = trackers.missing_extras(Runtime(trackers=("wandb",)))
    assert "wandb is not installed" in problem


def test_training_refuses_what_is_not_installed_before_it_opens_anything(installed, tmp_path):
    with pytest.raises(UserError, match=r"^runtime\.trackers: mlflow is not installed"):
        trackers.open_trackers(Runtime(trackers=("mlflow",)), tmp_path / "logs", RUN, CONFIG)
    assert not (tmp_path / "logs").exists()


def test_every_tracker_of_the_schema_has_an_extra(repository):
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert trackers.MODULES.keys() <= project["optional-dependencies"].keys()
    assert ALL.trackers == tuple(name for name in trackers.MODULES if name != "prometheus")


def test_what_was_opened_is_closed_when_the_next_cannot_be(monkeypatch, installed, tmp_path):
    first = Remembering()

    def refuse(*_):
        raise OSError("read-only")

    for name in ("tensorboard", "mlflow"):
        installed[name] = importlib.machinery.ModuleSpec(name, None, origin="somewhere")
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_: first)
    monkeypatch.setattr(trackers, "MLflow", refuse)
    with pytest.raises(OSError, match="read-only"):
        trackers.open_trackers(Runtime(trackers=("tensorboard", "mlflow")), tmp_path, RUN, CONFIG)
    assert first.got == [("close", False)]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("experiment is deleted\ntrace"),
            "runtime.trackers: mlflow cannot write to logs/mlflow (RuntimeError: experiment is deleted); move that folder "
            "away, or leave mlflow out",
        ),
        (CheckFailed("this run tried to reach 'elsewhere.example'; only fetch may use the network"), None),
    ],
)
def test_a_tracker_that_cannot_start_is_told_in_a_line(monkeypatch, installed, error, told):
    def refuse(*_):
        raise error

    installed["mlflow"] = importlib.machinery.ModuleSpec("mlflow", None, origin="somewhere")
    monkeypatch.setattr(trackers, "MLflow", refuse)
    with pytest.raises(UserError if told else CheckFailed) as raised:
        trackers.open_trackers(Runtime(trackers=("mlflow",)), Path("logs"), RUN, CONFIG)
    assert str(raised.value) == (told or str(error))


class FakeMLflow:
    """A store of MLflow: runs with their params and metrics, in memory and, as in the file store, one folder per run."""

    def __init__(self, folder):
        self.folder, self.runs, self.uri = folder, {}, None

    def __call__(self, tracking_uri):
        self.uri = tracking_uri
        return self

    def get_experiment_by_name(self, name):
        assert name == "codex-ml"
        return types.SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def _info(self, run_id):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def search_runs(self, experiments, query, max_results):
        assert experiments == ["7"]
        return [self._info(i) for i, run in self.runs.items() if query == f"tags.mlflow.runName = '{run['name']}'"]

    def create_run(self, experiment, run_name):
        self.runs["a"] = {"name": run_name, "params": {}, "status": "RUNNING"}
        return self._info("a")

    def update_run(self, run_id, status):
        self.runs[run_id]["status"] = status

    set_terminated = update_run

    def log_dict(self, run_id, config, name):
        self.runs[run_id][name] = config

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(metrics) <= 1000 and len(params) <= 100
        self.runs[run_id]["params"] |= dict(params)
        for name, value, _, step in metrics:
            file = self.folder / "7" / run_id / "metrics" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as handle:
                handle.write(f"{step} {value}\n")


def module(name, **members):
    made = types.ModuleType(name)
    vars(made).update(members)
    return made


@pytest.fixture
def environment(monkeypatch):
    """Undo the changes of a tracker to the environment after the test; the shell's settings are hostile."""
    import os

    kept = dict(os.environ)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere.example")
    yield os.environ
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture
def mlflow(monkeypatch, environment, tmp_path):
    store = FakeMLflow(tmp_path / "mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", module("mlflow"))
    entities = module("mlflow.entities", Param=lambda *of: of, Metric=lambda *of: of)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", module("mlflow.tracking", MlflowClient=store))
    return store


def test_mlflow_goes_on_in_the_run_and_holds_each_step_once(mlflow, tmp_path, environment):
    killed = trackers.MLflow(tmp_path / "mlflow", RUN, CONFIG)
    killed.log(POINTS[1:])
    assert mlflow.uri == str(tmp_path / "mlflow")
    resumed = trackers.MLflow(tmp_path / "mlflow", RUN, CONFIG)
    assert mlflow.runs["a"]["status"] == "RUNNING"
    resumed.log(POINTS[1:2])
    resumed.log(POINTS[2:])
    resumed.close(complete=True)
    metrics = tmp_path / "mlflow/7/a/metrics"
    assert {name: (metrics / name).read_text() for name in ("train/loss", "train/lr", "val/loss")} == {
        "train/loss": "10 2.5\n",
        "train/lr": "10 0.0005\n",
        "val/loss": "10 2.75\n",
    }
    assert mlflow.runs == {
        "a": {
            "name": RUN,
            "status": "FINISHED",
            "params.json": CONFIG,
            "params": {
                "seed": "1",
                "train.lr": "0.001",
                "train.schedule": "cosine",
                "model.lora.targets": "[]",
                "model.path": "",
            },
        }
    }
    settings = {name: value for name, value in environment.items() if name.startswith("MLFLOW_")}
    assert settings == {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}


def test_mlflow_takes_a_long_history_and_long_values(mlflow, tmp_path):
    sink = trackers.MLflow(
        tmp_path / "mlflow", RUN, {"train": {"long": "x" * 9000}, **{f"k{n}": n for n in range(250)}}
    )
    sink.log([{"step": step, "train/loss": 1.0, "train/lr": 0.1} for step in range(2500)])
    sink.close(complete=False)
    for name in ("train/loss", "train/lr"):
        assert len((tmp_path / "mlflow/7/a/metrics" / name).read_text().splitlines()) == 2500
    run = mlflow.runs["a"]
    assert (len(run["params"]), run["params"]["train.long"], run["status"]) == (251, "x" * 6000, "KILLED")
    assert run["params.json"]["train"]["long"] == "x" * 9000


@pytest.fixture
def wandb(monkeypatch, environment):
    made = []

    class Run:
        def __init__(self, **options):
            self.options, self.got = options, []
            made.append(self)

        def log(self, values, step):
            self.got.append((step, values))

        def finish(self, exit_code):
            self.got.append(exit_code)

    library = module("wandb", init=Run, Settings=dict, teardown=lambda: made.append("torn down"), made=made)
    monkeypatch.setitem(sys.modules, "wandb", library)
    return library


def test_wandb_is_offline_and_records_nothing_by_itself(wandb, tmp_path, environment):
    sink = trackers.Wandb(tmp_path / "wandb", RUN, CONFIG)
    sink.log(POINTS[1:])
    sink.close(complete=False)
    run, torn_down = wandb.made
    assert torn_down == "torn down"
    assert run.got == [(10, {"train/loss": 2.5, "train/lr": 0.0005}), (10, {"val/loss": 2.75}), 1]
    settings = run.options.pop("settings")
    assert run.options == {"project": "codex-ml", "id": RUN, "name": RUN, "config": CONFIG}
    assert settings["root_dir"] == str(tmp_path)
    assert settings["mode"] == environment["WANDB_MODE"] == "offline"
    assert settings["console"] == "off"
    assert all(settings[f"disable_{what}"] for what in ("code", "git"))
    assert all(settings[f"x_disable_{what}"] for what in ("machine_info", "meta", "stats"))
    assert not settings["save_code"] and not settings["x_save_requirements"]
    assert settings["host"] == settings["username"] == settings["email"] == ""
    assert "WANDB_API_KEY" not in environment


def test_wandb_starts_the_log_of_this_run_anew_and_leaves_others(wandb, tmp_path):
    for name in (f"offline-run-20260101_000000-{RUN}", "offline-run-20260101_000000-other"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    trackers.Wandb(tmp_path / "wandb", RUN, CONFIG)
    assert [folder.name for folder in (tmp_path / "wandb").glob("offline*")] == ["offline-run-20260101_000000-other"]


@pytest.fixture
def tensorboard(monkeypatch):
    made = []

    class Writer:
        def __init__(self, folder):
            self.folder, self.got = folder, []
            self.file_writer = types.SimpleNamespace(add_summary=self.got.append)
            made.append(self)

        def add_scalar(self, name, value, global_step):
            self.got.append((name, value, global_step))

        def flush(self):
            self.got.append("flush")

        def close(self):
            self.got.append("close")

    def hparams(values, metrics):
        return [values, metrics, "start"]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module("tensorboard", SummaryWriter=Writer))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.summary", module("summary", hparams=hparams))
    return made


def test_tensorboard_draws_over_the_global_step_in_a_folder_that_starts_anew(tensorboard, tmp_path):
    (tmp_path / "tensorboard" / RUN).mkdir(parents=True)
    (tmp_path / "tensorboard" / RUN / "events.out.tfevents.1").write_text("of the killed run")
    (tmp_path / "tensorboard" / RUN / "audit").mkdir()
    sink = trackers.TensorBoard(tmp_path / "tensorboard", RUN, CONFIG)
    assert [left.name for left in (tmp_path / "tensorboard" / RUN).iterdir()] == ["audit"]
    sink.log(POINTS[1:])
    sink.close(complete=True)
    (writer,) = tensorboard
    assert writer.folder == str(tmp_path / "tensorboard" / RUN)
    flat = {"seed": 1, "train.lr": 0.001, "train.schedule": "cosine", "model.lora.targets": "[]", "model.path": ""}
    assert writer.got == [
        *(flat, {"val/loss": 0.0}, "start", "flush"),
        *(("train/loss", 2.5, 10), ("train/lr", 0.0005, 10), ("val/loss", 2.75, 10), "flush", "close"),
    ]


TAGS = {"run": "20260131-120000-0a1b2c", "experiment": "sour-tea", "seed": "7", "commit": "c" * 40 + "+changes"}


def test_each_library_gets_the_tags_as_it_groups_runs(mlflow, wandb, tensorboard, installed, tmp_path, monkeypatch):
    tags, texts = [], []
    mlflow.set_tag = lambda run, name, value: tags.append((run, name, value))
    writer = sys.modules["torch.utils.tensorboard"].SummaryWriter
    monkeypatch.setattr(writer, "add_text", lambda self, name, value: texts.append((name, value)), raising=False)
    installed.update(dict.fromkeys(("tensorboard", "mlflow", "wandb"), types.SimpleNamespace(origin="there")))
    runtime = Runtime(trackers=("tensorboard", "mlflow", "wandb"))
    trackers.open_trackers(runtime, tmp_path, RUN, CONFIG, tags=TAGS)
    assert tags == [("a", f"codex_ml.{name}", value) for name, value in TAGS.items()]
    assert texts == [(f"tags/{name}", value) for name, value in TAGS.items()]
    options = wandb.made[0].options
    assert options["group"] == "sour-tea"
    assert options["tags"] == [
        "run:20260131-120000-0a1b2c", "experiment:sour-tea", "seed:7", f"commit:{'c' * 40}+changes"
    ]  # fmt: skip


def test_tags_name_run_experiment_seed_and_commit(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "sour-tea")
    assert run_tags(7) == {"run": run_id(), "experiment": "sour-tea", "seed": "7", "commit": "none"}
    note = SideNote.model_construct(run=run_id(), commit="c" * 40, dirty=True)
    monkeypatch.setattr(side_note, "_current", [(None, note)])
    monkeypatch.delenv("DVC_EXP_NAME")
    assert (run_tags(1)["experiment"], run_tags(1)["commit"]) == ("workspace", f"{'c' * 40}+changes")


RESULTS = StageResults(
    kind="evaluation",
    step=600,
    numbers={"evaluation/bits_per_byte": 1.5},
    texts={"model": "models/model@sha256:5a", "run": "r2"},
    tags={"run": "r1", "experiment": "sour-tea", "seed": "7", "commit": "none"},
    config=CONFIG,
)


def test_tensorboard_gets_results_in_a_folder_of_the_run(tensorboard, tmp_path, monkeypatch):
    texts = []
    writer = sys.modules["torch.utils.tensorboard"].SummaryWriter
    monkeypatch.setattr(writer, "add_text", lambda self, name, value: texts.append((name, value)), raising=False)
    group = tmp_path / "tensorboard" / RUN / "evaluation"
    group.mkdir(parents=True)
    (group / "events.out.tfevents.1").write_text("of the evaluation before")
    assert add_results("tensorboard", tmp_path, RUN, RESULTS)
    assert not group.exists()
    (made,) = tensorboard
    assert (made.folder, made.got) == (str(group), [("evaluation/bits_per_byte", 1.5, 600), "close"])
    assert dict(texts) == {
        **{f"tags/{name}": value for name, value in RESULTS.tags.items()},
        "tags/evaluation/model": "models/model@sha256:5a",
        "tags/evaluation/run": "r2",
    }


def test_mlflow_gets_results_in_the_run_of_the_training_once_and_a_training_keeps_them(mlflow, tmp_path):
    tags = {}
    mlflow.set_tag = lambda run, name, value: tags.__setitem__(name, value)
    trackers.MLflow(tmp_path / "mlflow", RUN, CONFIG).close(complete=True)
    for _ in range(2):
        assert add_results("mlflow", tmp_path, RUN, RESULTS)
    metric = tmp_path / "mlflow/7/a/metrics/evaluation/bits_per_byte"
    assert metric.read_text() == "600 1.5\n"
    assert tags == {"codex_ml.evaluation.model": "models/model@sha256:5a", "codex_ml.evaluation.run": "r2"}
    assert list(mlflow.runs) == ["a"]
    again = trackers.MLflow(tmp_path / "mlflow", RUN, CONFIG)
    again.log(POINTS[1:2])
    trackers.MLflow(tmp_path / "mlflow", RUN, CONFIG)
    assert metric.exists() and not (tmp_path / "mlflow/7/a/metrics/train").exists()


def test_mlflow_gets_results_of_a_model_that_it_has_no_run_of(mlflow, tmp_path):
    tags = {}
    mlflow.set_tag = lambda run, name, value: tags.__setitem__(name, value)
    (tmp_path / "mlflow").mkdir()
    assert add_results("mlflow", tmp_path, "model-5a", RESULTS)
    assert (mlflow.runs["a"]["name"], mlflow.runs["a"]["status"]) == ("model-5a", "FINISHED")
    assert mlflow.runs["a"]["params.json"] == CONFIG
    assert tags["codex_ml.experiment"] == "sour-tea"


def test_wandb_gets_results_in_a_run_of_its_own_in_the_group(wandb, tmp_path):
    assert add_results("wandb", tmp_path, RUN, RESULTS)
    run, torn_down = wandb.made
    assert torn_down == "torn down"
    assert run.got == [(600, {"evaluation/bits_per_byte": 1.5}), 0]
    run.options.pop("settings")
    assert run.options == {
        "project": "codex-ml", "id": f"{RUN}-evaluation", "name": f"{RUN}-evaluation", "job_type": "evaluation",
        "group": "sour-tea", "tags": ["run:r1", "experiment:sour-tea", "seed:7", "commit:none"], "config": RESULTS.texts,
    }  # fmt: skip
