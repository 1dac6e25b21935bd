"""The real libraries, if they are installed: their own readers read back what they wrote."""

from __future__ import annotations

import subprocess

import pytest

from codex_ml.core.config import Runtime
from codex_ml.train.timings import Timings
from codex_ml.train.trackers import open_trackers
from codex_ml.train.tracking import Tracker

RUN = "0123456789abcdef"
CONFIG = {"seed": 1, "train": {"lr": 0.001}}
POINTS = [
    {"step": 5, "train/loss": 3.25, "train/lr": 0.001},
    {"step": 10, "train/loss": 2.5, "train/lr": 0.0005},
    {"step": 10, "val/loss": 2.75},
    {"step": 15, "train/loss": 2.0, "train/lr": 0.00025},
]
CURVES = {
    "train/loss": [(5, 3.25), (10, 2.5), (15, 2.0)],
    "train/lr": [(5, 0.001), (10, 0.0005), (15, 0.00025)],
    "val/loss": [(10, 2.75)],
}
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-shell",
    "WANDB_API_KEY": "7" * 40,
    "WANDB_NOTES": "n0te-of-the-shell",
}

# Trains in its own process, as a stage does: killed after its last point, or to the end. Whatever connects to another
# machine ends it; W&B's own process is started with an empty HOME and a proxy that does not exist.
CODE = f"""
import os, sys
from pathlib import Path
def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        os._exit(77)
sys.addaudithook(refuse)
from codex_ml.core.config import Runtime
from codex_ml.train.timings import Timings
from codex_ml.train.trackers import open_trackers
from codex_ml.train.tracking import Tracker
name, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
points = {POINTS}
sinks = open_trackers(Runtime(trackers=(name,)), Path("logs"), {RUN!r}, {CONFIG})
tracker = Tracker(Path("curves"), Timings(Path("logs/events.ndjson")), points[:first], extra=sinks)
for point in points[first:last]:
    tracker.log(point)
if last < len(points):
    os._exit(9)
tracker.finish({{}})
assert not Path("logs/events.ndjson").exists()  # no tracker failed
"""


# Sends the results of an evaluation in its own process, as `codex-ml track` does.
RESULTS = f"""
import os, sys
from pathlib import Path
def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        os._exit(77)
sys.addaudithook(refuse)
from codex_ml.train.result_trackers import StageResults, add_results
results = StageResults(
    kind="evaluation", step=15, numbers={{"evaluation/code/tiny/pass_at_1": float(sys.argv[2])}},
    texts={{"model": "models/model@sha256:5a", "artifacts": "data/packed@sha256:6b", "run": "r2", "commit": "c"}},
    tags={{"run": "r1", "experiment": "sour-tea", "seed": "1", "commit": "c"}}, config={CONFIG},
)
assert add_results(sys.argv[1], Path("logs"), {RUN!r}, results)
"""


@pytest.fixture
def train(tmp_path, run_python):
    home, folder = tmp_path / "home", tmp_path / "a check'out"
    home.mkdir()
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    url = "https://user:p4ss-in-url@git.example/repo"  # pragma: allowlist secret
    subprocess.run(["git", "remote", "add", "origin", url], cwd=folder, check=True)

    def train(name, *, history=0, upto=4, result=None):
        """Train; or, with `result`, send that number."""
        nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
        done = run_python(
            *(("-c", CODE, name, str(history), str(upto)) if result is None else ("-c", RESULTS, name, str(result))),
            "--token=t0ken-of-the-line",
            cwd=folder,
            env={
                **SECRETS,
                **nowhere,
                "HOME": str(home),
                "PYTEST_CURRENT_TEST": "",
                "MLFLOW_TRACKING_URI": "http://x.example",
            },
        )
        assert done.returncode == (9 if upto < len(POINTS) else 0), done.stderr
        assert [file for file in home.rglob("*") if file.is_file()] == []  # all it writes lies in the checkout
        return folder / "logs" / name

    return train


def assert_clean(folder):
    hidden = [*SECRETS.values(), "p4ss-in-url", "t0ken-of-the-line", "git.example"]
    for file in folder.rglob("*"):
        if file.is_file():
            assert not [secret for secret in hidden if secret.encode() in file.read_bytes()], file


def tensorboard_curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / RUN), purge_orphaned_data=False)
    reader.Reload()
    names = reader.Tags()["scalars"]
    assert len(list((folder / RUN).iterdir())) == 1
    return {
        name: [(event.step, pytest.approx(event.value, rel=1e-7)) for event in reader.Scalars(name)] for name in names
    }


def mlflow_runs(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=str(folder))
    experiment = client.get_experiment_by_name("codex-ml")
    return client, client.search_runs([experiment.experiment_id])


def wandb_records(folder, name=RUN):
    """Read the log of W&B by its file format, LevelDB's: after 7 bytes, records cut into blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob(f"offline-run-*-{name}/run-{name}.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def wandb_curves(folder, name=RUN):
    curves = {}
    for record in wandb_records(folder, name):
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                curves.setdefault(name, []).append((record.history.step.num, float(item.value_json)))
    return curves


def test_tensorboard_reads_each_step_once_after_a_kill(tmp_path):
    pytest.importorskip("tensorboard")
    runtime = Runtime(trackers=("tensorboard",))
    killed = open_trackers(runtime, tmp_path / "logs", RUN, CONFIG)
    Tracker(tmp_path / "curves", Timings(tmp_path / "events"), POINTS[:3], extra=killed)
    resumed = open_trackers(runtime, tmp_path / "logs", RUN, CONFIG)
    tracker = Tracker(tmp_path / "curves", Timings(tmp_path / "events"), POINTS[:1], extra=resumed)
    for point in POINTS[1:]:
        tracker.log(point)
    killed[0].close(complete=False)
    tracker.finish({})
    assert tensorboard_curves(tmp_path / "logs/tensorboard") == CURVES


def test_mlflow_reads_each_step_once_after_a_kill_in_the_same_run(train, monkeypatch):
    pytest.importorskip("mlflow")
    folder = train("mlflow", upto=3)
    _, (killed,) = mlflow_runs(folder, monkeypatch)
    assert killed.info.status == "RUNNING"
    train("mlflow", history=1)
    client, (run,) = mlflow_runs(folder, monkeypatch)
    assert run.info.run_id == killed.info.run_id
    assert (run.info.status, run.info.run_name, run.info.user_id) == ("FINISHED", RUN, "unknown")
    assert run.data.params == {"seed": "1", "train.lr": "0.001"}
    assert set(run.data.tags) == {"mlflow.runName"}
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert {name: [(point.step, point.value) for point in points] for name, points in history.items()} == CURVES
    assert_clean(folder)


def test_wandb_reads_each_step_once_after_a_kill_in_the_same_run(train):
    pytest.importorskip("wandb")
    folder = train("wandb", upto=3)
    train("wandb", history=1)
    assert wandb_curves(folder) == CURVES
    assert_clean(folder)
    (run,) = [record.run for record in wandb_records(folder) if record.HasField("run")]
    assert (run.run_id, run.display_name, run.project, run.host) == (RUN, RUN, "codex-ml", "")
    assert not run.HasField("git")
    assert {item.key or "/".join(item.nested_key) for item in run.config.update} == {"_wandb", *CONFIG}


def test_wandb_leaves_no_process(train):
    pytest.importorskip("wandb")
    psutil = pytest.importorskip("psutil")
    before = {process.pid for process in psutil.process_iter()}
    train("wandb")
    new = [p for p in psutil.process_iter() if p.pid not in before and "wandb" in p.name()]
    assert psutil.wait_procs(new, timeout=30)[1] == []


def test_tensorboard_reads_the_results_of_the_last_evaluation_and_a_training_keeps_them(train):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    for action in ({}, {"result": 0.5}, {"result": 0.25}, {}):
        folder = train("tensorboard", **action)
    found = EventMultiplexer().AddRunsFromDirectory(str(folder))
    found.Reload()
    group = f"{RUN}/evaluation"
    assert set(found.Runs()) == {RUN, group}
    assert [(e.step, e.value) for e in found.Scalars(group, "evaluation/code/tiny/pass_at_1")] == [(15, 0.25)]
    texts = {name: found.Tensors(group, name)[0].tensor_proto.string_val[0] for name in found.Runs()[group]["tensors"]}
    assert texts["tags/evaluation/model/text_summary"] == b"models/model@sha256:5a"
    assert texts["tags/experiment/text_summary"] == b"sour-tea"
    assert [event.step for event in found.Scalars(RUN, "train/loss")] == [5, 10, 15]
    assert_clean(folder)


def test_mlflow_reads_the_results_of_the_last_evaluation_in_the_run_of_the_training(train, monkeypatch):
    pytest.importorskip("mlflow")
    for action in ({}, {"result": 0.5}, {"result": 0.25}, {}):
        folder = train("mlflow", **action)
    client, (run,) = mlflow_runs(folder, monkeypatch)
    assert (run.info.status, run.info.run_name) == ("FINISHED", RUN)
    name = "evaluation/code/tiny/pass_at_1"
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)] == [(15, 0.25)]
    assert (run.data.metrics[name], run.data.metrics["train/loss"]) == (0.25, 2.0)
    tags = {key.removeprefix("codex_ml.evaluation."): value for key, value in run.data.tags.items()}
    assert tags["model"] == "models/model@sha256:5a"
    assert tags["artifacts"] == "data/packed@sha256:6b"
    assert_clean(folder)


def test_wandb_reads_the_results_of_the_last_evaluation_in_a_run_of_the_same_group(train):
    pytest.importorskip("wandb")
    for action in ({}, {"result": 0.5}, {"result": 0.25}):
        folder = train("wandb", **action)
    name = f"{RUN}-evaluation"
    assert wandb_curves(folder, name) == {"evaluation/code/tiny/pass_at_1": [(15, 0.25)]}
    (run,) = [record.run for record in wandb_records(folder, name) if record.HasField("run")]
    assert (run.run_id, run.run_group, run.job_type, run.host) == (name, "sour-tea", "evaluation", "")
    config = {item.key or "/".join(item.nested_key): item.value_json for item in run.config.update}
    assert config["model"] == '"models/model@sha256:5a"'
    assert wandb_curves(folder) == CURVES
    assert_clean(folder)
