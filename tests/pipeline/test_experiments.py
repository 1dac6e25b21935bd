"""`dvc exp run`: only what depends on the knob, and always with the code that was recorded."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from workspace import Workspace

from codex_ml.cli.param_rules import Params
from codex_ml.core.sections import known_keys

LATER = ["train", "evaluate", "safety_audit", "report"]


def ran(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def restored(output: str) -> list[str]:
    return re.findall(r"^Stage '(\w+)' is cached - skipping run", output, re.MULTILINE)


@pytest.fixture
def identity(pipeline: Workspace) -> Workspace:
    pipeline.run("git", "config", "user.name", "Test")
    pipeline.run("git", "config", "user.email", "test@example.org")
    return pipeline


def test_one_knob_reruns_training_and_what_follows_and_the_way_back_runs_nothing(identity: Workspace) -> None:
    lock, record = identity.lock, (identity.root / "reports/train/lineage.json").read_bytes()
    done = identity.dvc("exp", "run", "-S", "train.lr=2e-3")
    assert ran(done.stdout) == LATER
    shown = json.loads(identity.dvc("exp", "show", "--json").stdout)
    assert "0.002" in json.dumps(shown)
    changed = json.loads(identity.dvc("params", "diff", "--json").stdout)
    assert changed == {"params.yaml": {"train.lr": {"old": 0.003, "new": 0.002, "diff": pytest.approx(-0.001)}}}
    metrics = json.loads(identity.dvc("metrics", "diff", "--json").stdout)
    assert metrics["reports/evaluate/metrics.json"]["bits_per_byte"]["diff"] != 0
    (found,) = json.loads(identity.cli("compare", "HEAD", "workspace", "--json").stdout)["comparisons"]
    assert [side["kind"] for side in (found["a"], found["b"])] == ["revision", "workspace"]
    assert found["notes"] == []
    changed = {(one["kind"], one["name"]): (one["a"], one["b"]) for one in found["inputs"]}
    assert changed.pop(("params", "train.lr")) == ("0.003", "0.002")
    assert changed.keys() == {("data", "models/model")}, "nothing else differs"
    bits = next(one for one in found["metrics"] if one["metric"] == "bits_per_byte")
    values = metrics["reports/evaluate/metrics.json"]["bits_per_byte"]
    assert (bits["a"], bits["b"]) == (pytest.approx(values["old"], abs=1e-6), pytest.approx(values["new"], abs=1e-6))
    shown = identity.dvc("metrics", "diff", "--all").stdout.splitlines()
    assert len(shown) <= 40, "it fits a screen"
    names = [line.split()[1] for line in shown[1:]]
    assert not set(names) & set(known_keys(Params))  # dvc exp show would have two columns of that name
    plots = identity.dvc("plots", "diff", "--json").stdout
    for wanted in ("Loss (nats per token)", "Bits per byte by source", '"HEAD"', '"workspace"'):
        assert wanted in plots, wanted
    assert "links hold" in identity.cli("verify").stdout
    back = identity.dvc("exp", "run", "-S", "train.lr=3e-3").stdout
    assert ran(back) == []
    assert restored(back) == LATER
    assert (identity.lock, (identity.root / "reports/train/lineage.json").read_bytes()) == (lock, record)
    assert identity.run("git", "status", "--porcelain").stdout.split() == ["M", "params.yaml"]  # 3e-3 is 0.003 there
    assert "links hold" in identity.cli("verify").stdout


@pytest.mark.slow
def test_an_encoder_decoder_goes_through_the_pipeline(identity: Workspace) -> None:
    """Trained, evaluated on the same documents, and audited, with its control: nothing of it is a special case of DVC."""
    scored = "reports/evaluate/details.json"
    before = json.loads((identity.root / scored).read_bytes())["tasks"]["documents"]
    done = identity.dvc("exp", "run", "-S", "+model.architecture=t5", "-S", "+pack.layout=padded")
    assert ran(done.stdout) == ["pack", *LATER]
    config = json.loads((identity.root / "models/model/config.json").read_bytes())
    assert config["architectures"] == ["T5ForConditionalGeneration"]
    after = json.loads((identity.root / scored).read_bytes())["tasks"]["documents"]
    assert (after["units"], after["counts"]) == (before["units"], before["counts"])
    losses = (identity.root / "reports/train/plots/metrics/val/loss.tsv").read_text().split()[3::2]
    assert float(losses[-1]) < float(losses[0])
    audit = json.loads((identity.root / "reports/safety_audit/audit.json").read_bytes())
    assert {control["name"] for control in audit["parts"]["memorisation"]["controls"] if control["passed"]} >= {
        "the model's own greedy text is extracted"
    }
    assert "links hold" in identity.cli("verify").stdout


@pytest.mark.parametrize("how", ["--temp", pytest.param("--queue", marks=pytest.mark.slow)])
def test_experiment_in_a_copy_uses_the_code_of_its_start(identity: Workspace, how: str) -> None:
    """The library of the workspace is broken after queueing; a run that imported it would fail."""
    stages = LATER if how == "--queue" else ["train"]
    before = identity.lock
    if how == "--queue":
        identity.dvc("exp", "run", "--queue", "-S", "train.lr=2e-3")
        module = identity.root / "src/codex_ml/train/schedule.py"
        module.write_text("raise SystemExit('the code of the workspace ran')\n", encoding="utf-8")
        identity.dvc("queue", "start", "--jobs", "1")
        (log,) = _wait_for_queue(identity)
        identity.run("git", "checkout", "src")
    else:
        log = identity.dvc("exp", "run", "--temp", "-S", "train.lr=2e-3", *stages).stdout
    assert ran(log) == stages
    assert identity.lock == before
    shown = identity.dvc("exp", "show", "--csv").stdout
    assert "0.002" in shown
    (logs,) = (identity.root / "logs/experiments").iterdir()
    assert {file.name for file in logs.iterdir()} == {"train", "environment", *(f"{stage}.ndjson" for stage in stages)}
    assert (logs / "train/events.ndjson").exists()


@pytest.mark.slow
def test_a_sweep_of_both_rates_trains_every_pair_and_ends_after_train(identity: Workspace) -> None:
    """The commands of docs/training.md."""
    before = identity.lock
    rates = ("-S", "train.lr=1e-3,3e-3", "-S", "+train.embedding_lr=8e-3,32e-3")
    identity.dvc("exp", "run", "--queue", "-S", "train.max_steps=15", *rates, "train")
    identity.dvc("queue", "start")
    assert [ran(log) for log in _wait_for_queue(identity)] == [["train"]] * 4
    assert identity.lock == before
    shown = identity.dvc("exp", "show", "--only-changed", "--sort-by", "best_val_loss", "--csv").stdout
    table = [row for row in csv.DictReader(io.StringIO(shown)) if row["typ"].startswith("branch")]
    pairs = {(float(row["train.lr"]), float(row["train.embedding_lr"])) for row in table}
    assert pairs == {(0.001, 0.008), (0.001, 0.032), (0.003, 0.008), (0.003, 0.032)}
    losses = [float(row["best_val_loss"]) for row in table]
    assert losses == sorted(set(losses))
    assert len(losses) == 4


@pytest.mark.slow
def test_two_experiments_of_one_recipe_at_once_train_once(identity: Workspace) -> None:
    """The first is stopped in training until the second waits for it; the second then takes its result."""
    knobs = ("train.lr=2e-3", "train.max_steps=600", "+train.precision=fp32")  # fp32 compiles from 2000 steps
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", *(word for knob in knobs for word in ("-S", knob))]
    scratch, logs = identity.root / ".cache/train", identity.root / "logs/experiments"
    options = {"cwd": identity.root, "env": identity.environment, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **options, **pipes) as first:
        _until(lambda: any(scratch.glob("*/step-*")), first)
        (checkpoint, *_) = scratch.glob("*/step-*")
        lock = checkpoint.parent.with_suffix(".lock")  # "process <number> on ..."
        trainer = int(lock.read_text(encoding="utf-8").split()[1])
        os.kill(trainer, signal.SIGSTOP)
        with subprocess.Popen(command, **options, **pipes) as second:
            try:
                _until(
                    lambda: any("waiting until it ends" in log.read_text() for log in logs.glob("*/train.ndjson")),
                    second,
                )
            finally:
                os.kill(trainer, signal.SIGCONT)
            outputs = [process.communicate()[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert ran(outputs[0]) == LATER
    assert ran(outputs[1])[0] == "train"  # it had started; what the first ends before it gets there is restored
    assert sorted([*ran(outputs[1]), *restored(outputs[1])], key=LATER.index) == LATER
    texts = [log.read_text(encoding="utf-8") for log in logs.glob("*/train.ndjson")]
    assert sorted("resumed from the checkpoint of step 600 of 600" in text for text in texts) == [False, True]
    assert {path.suffix for path in scratch.iterdir()} == {".lock", ".queue"}
    names = _experiments(identity)
    locks = {identity.run("git", "show", f"{name}:dvc.lock").stdout for name in names}
    assert (len(names), len(locks)) == (2, 1)


def _experiments(workspace: Workspace) -> list[str]:
    found = workspace.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return [name for name in found if name.count("/") == 4]  # refs/exps/<2 digits>/<38 digits>/<name>


def _until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def _wait_for_queue(workspace: Workspace) -> list[str]:
    """Return what each task of the queue printed, when all have succeeded."""
    for _ in range(240):
        status = workspace.dvc("queue", "status").stdout
        ended = re.findall(r"^(\w+) .*(Success|Failed)", status, re.MULTILINE)
        if ended and not re.search(r"Queued|Running", status):
            logs = [workspace.dvc("queue", "logs", name).stdout for name, _ in ended]
            assert {result for _, result in ended} == {"Success"}, logs
            return logs
        time.sleep(1)
    raise AssertionError(f"the queue did not end:\n{status}")
