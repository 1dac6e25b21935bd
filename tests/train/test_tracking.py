"""Curves are a function of the run; times go only to the log."""

from __future__ import annotations

import csv
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from codex_ml.core.strict_json import parse_json
from codex_ml.modeling.rows import IGNORE, rows_of_step
from codex_ml.train import throughput
from codex_ml.train.timings import Timings
from codex_ml.train.tracking import Tracker

pytestmark = pytest.mark.usefixtures("one_thread")

POINTS = [
    {"step": 5, "train/loss": 3.25, "train/grad_norm": 1.5, "train/lr": 0.001},
    {"step": 10, "train/loss": 2.5, "train/grad_norm": 0.1, "train/lr": 1e-5},
    {"step": 10, "val/loss": 2.75},
    {"step": 15, "train/loss": 1 / 3, "train/grad_norm": 0.2, "train/lr": 0.0},
]


def written(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def track(folder, points, history=()):
    tracker = Tracker(folder, Timings(folder.parent / "events.ndjson"), history)
    for point in points:
        tracker.log(point)
    tracker.finish({"best_step": 10})
    return tracker


def test_curves_are_drawn_over_the_global_step(tmp_path):
    track(tmp_path / "curves", POINTS)
    with (tmp_path / "curves/plots/metrics/train/loss.tsv").open() as handle:
        assert list(csv.reader(handle, delimiter="\t")) == [
            ["step", "loss"],
            ["5", "3.25"],
            ["10", "2.5"],
            ["15", "0.3333333333333333"],
        ]
    assert (tmp_path / "curves/plots/metrics/val/loss.tsv").read_text() == "step\tloss\n10\t2.75\n"


def test_metrics_are_the_last_losses_and_the_summary(tmp_path):
    """train.lr is a parameter: `dvc exp show` would have two columns of that name."""
    track(tmp_path / "curves", POINTS)
    assert parse_json((tmp_path / "curves/metrics.json").read_bytes()) == {
        "train": {"loss": 1 / 3},
        "val": {"loss": 2.75},
        "step": 15,
        "best_step": 10,
    }


@pytest.mark.parametrize("done", [1, 2, 3])
def test_resumed_curves_have_the_same_bytes(tmp_path, done):
    track(tmp_path / "whole", POINTS)
    track(tmp_path / "resumed", POINTS)  # went on after its last checkpoint, and was killed
    track(tmp_path / "resumed", POINTS[done:], history=POINTS[:done])
    assert written(tmp_path / "resumed") == written(tmp_path / "whole")


def test_timings_are_in_the_log_and_nowhere_else(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    recipe.train(tmp_path / "run", log_every=3)
    assert sorted(written(tmp_path / "run/curves")) == [
        "metrics.json",
        "plots/metrics/train/grad_norm.tsv",
        "plots/metrics/train/loss.tsv",
        "plots/metrics/train/lr.tsv",
        "plots/metrics/val/loss.tsv",
    ]
    for file in (tmp_path / "run/curves").rglob("*.tsv"):
        with file.open() as handle:
            rows = list(csv.reader(handle, delimiter="\t"))
        assert rows[0] == ["step", file.stem]
        expected = ["2", "4", "6", "8", "10"] if file.parent.name == "val" else ["3", "6", "9", "10"]
        assert [row[0] for row in rows[1:]] == expected
    events = [parse_json(line) for line in (tmp_path / "run/events.ndjson").read_text().splitlines()]
    assert [event["step"] for event in events] == [3, 6, 9, 10]
    for event in events:
        assert event["time"] > 0
        assert event["tokens_per_second"] > 0
    samples = [parse_json(line) for line in (tmp_path / "run/system.ndjson").read_text().splitlines()]
    assert samples and all(sample["rss_mb"] > 0 for sample in samples)


def test_a_run_with_two_rates_has_a_curve_of_each(recipe, tmp_path):
    """At every step both rates are the same share of their peaks."""
    recipe.train(tmp_path, max_steps=4, optimizer="muon", lr=0.25, embedding_lr=2.0)
    curves = []
    for name in ("lr", "embedding_lr"):
        with (tmp_path / f"curves/plots/metrics/train/{name}.tsv").open() as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
        curves.append([float(row[name]) for row in rows])
    assert max(curves[0]) == 0.25
    assert curves[1] == [8 * rate for rate in curves[0]]
    assert parse_json((tmp_path / "curves/metrics.json").read_bytes())["train"].keys() == {"loss"}


def test_the_first_step_which_compiles_is_in_no_rate(recipe, tmp_path):
    recipe.train(tmp_path, log_every=1, max_steps=3)
    events = [parse_json(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()]
    assert [(event["step"], "tokens_per_second" in event) for event in events] == [(1, False), (2, True), (3, True)]


def test_a_process_measures_the_peak_of_its_machine_once():
    measured = throughput.matmul_peak(torch.device("cpu"), "fp32")
    assert throughput.matmul_peak(torch.device("cpu"), "fp32") == measured > 0  # of another measurement, digits differ


def test_a_rate_counts_the_trained_tokens_and_no_filler(recipe, monkeypatch, tmp_path, caplog):
    """Padded rows hold one record each, whose prompt is only read."""
    now = iter(range(1000))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_: 1e9)
    caplog.set_level("INFO")
    recipe.train(tmp_path, layout="padded", log_every=1, max_steps=3, micro_batch_size=2)
    rows = recipe.padded(tmp_path / "again", 12, seed=12)
    targets = []
    for step in range(3):
        labels = rows.batch(rows_of_step(12, step=step, batch_rows=2, seed=3))["labels"]
        targets.append(int((labels != IGNORE).sum()))
    events = [parse_json(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()]
    assert [event["tokens_per_second"] for event in events[1:]] == [float(count) for count in targets[1:]]
    assert [event["untrained"] for event in events[1:]] == [round(1 - n / (2 * recipe.SEQ_LEN), 4) for n in targets[1:]]
    assert (
        f"train: {sum(targets)} trained tokens ({sum(targets) / (6 * recipe.SEQ_LEN):.1%} of the places" in caplog.text
    )


@pytest.mark.parametrize(("compiled", "told"), [(False, 0), (True, 1)])
def test_a_run_that_compiles_says_so_before_its_first_step(recipe, monkeypatch, tmp_path, caplog, compiled, told):
    monkeypatch.setattr(recipe.loop, "_steps", lambda *_: None)
    hardware = replace(recipe.HARDWARE, compile=compiled)
    caplog.set_level("INFO", logger="codex_ml")
    recipe.train(tmp_path, hardware=hardware)
    assert caplog.text.count("torch.compile builds kernels in the first step") == told


@pytest.fixture
def checkout(tmp_path):
    """The current folder is a Git repository with a pipeline, without a commit."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (tmp_path / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def test_pipeline_and_repository_around_it_are_not_touched(checkout, recipe):
    """DVCLive would add its plots to dvc.yaml and save an experiment."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "commit", "--quiet", "--allow-empty", "-m", "start"], cwd=checkout, check=True)
    before = written(checkout)
    (checkout / "run").mkdir()
    recipe.train(checkout / "run", max_steps=2)
    after = {name: data for name, data in written(checkout).items() if not name.startswith(("run/", ".dvc/tmp/"))}
    assert after == before


@pytest.mark.costly
def test_repository_without_a_commit_can_be_trained_in(checkout, recipe):
    (checkout / "run").mkdir()
    _, best = recipe.train(checkout / "run", max_steps=2)
    assert best["step"] == 2
