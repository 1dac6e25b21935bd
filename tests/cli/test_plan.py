"""`codex-ml plan` says what `dvc repro` then does: on a small project of DVC, with the real commands."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.planning.plan_schema import ReproPlan
from codex_ml.core.error_log import COMMAND

from ..json_schema_checker import problems

PIPELINE = """\
stages:
  split:
    cmd: mkdir -p data/splits; for f in one two; do tr a-z A-Z < data/raw/$f > data/splits/$f; done; echo split >> ran
    deps: [data/raw]
    params: [seed]
    outs: [data/splits]
  train:
    cmd: mkdir -p models; head -c 3 data/splits/one > models/model; cat params.yaml | wc -c > metrics.json; echo train >> ran
    deps: [data/splits/one]
    params: [train]
    outs: [models/model]
    metrics: [{metrics.json: {cache: false}}]
  report:
    cmd: cat models/model data/splits/two > page; echo report >> ran
    deps: [models/model, data]
    outs: [page]
"""
PARAMS = "seed: 1\ntrain:\n  lr: 1e-3\n  schedule: linear\nreport: {}\n"
GIT = ("-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *GIT, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repro(*targets: str) -> tuple[set[str], set[str]]:
    """Run `dvc repro`: the stages whose command ran, and those that DVC restored."""
    Path("ran").write_text("")
    with Repo() as repo:
        done = {stage.addressing for stage in repo.reproduce(targets=list(targets) or None)}
    ran = set(Path("ran").read_text().split())
    return ran, done - ran


def dry() -> set[str]:
    with Repo() as repo:
        return {stage.addressing for stage in repo.reproduce(dry=True)}


def page(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(whole_app(), ["plan", *arguments])
    return done.exit_code, done.stdout + done.stderr


def planned(*arguments: str) -> ReproPlan:
    done = CliRunner().invoke(whole_app(), ["plan", "--json", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    found = ReproPlan.model_validate_json(done.stdout or done.stderr)
    assert done.exit_code == found.exit_code
    assert problems(json.loads(done.stdout), output_schema("plan")) == []
    assert done.stdout.isascii()
    return found


def actions(found: ReproPlan) -> dict[str, str]:
    return {step.stage: step.action for step in found.stages}


def texts(found: ReproPlan, stage: str) -> list[str]:
    return next([reason.text for reason in step.why] for step in found.stages if step.stage == stage)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make(tmp_path, monkeypatch)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three stages that has not run; it becomes the current folder."""
    folder = tmp_path / "project"
    (folder / "src/codex_ml").mkdir(parents=True)
    (folder / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name, text in {
        "dvc.yaml": PIPELINE, "params.yaml": PARAMS, "src/codex_ml/code.py": "", "data/raw/one": "first\n", "data/raw/two": "second\n",
        ".gitignore": "/ran\n/data/splits\n/models\n/page\n",
    }.items():  # fmt: skip
        Path(name).write_text(text)
    git("init", "-q")
    Repo.init(".").close()
    git("add", "-A")
    git("commit", "-qm", "start")
    return folder


RAN: list[Path] = []  # the project after its run, made once


@pytest.fixture
def ran(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project after a run that is committed."""
    if not RAN:
        with pytest.MonkeyPatch.context() as patch:
            RAN.append(make(tmp_path_factory.mktemp("ran"), patch))
            repro()
            git("add", "-A")
            git("commit", "-qm", "the first run")
    shutil.copytree(RAN[0], tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return tmp_path / "project"


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def test_before_the_first_run_every_stage_runs(project: Path) -> None:
    found = planned()
    assert actions(found) == {"split": "run", "train": "run", "report": "run"}
    assert [reason.kind for step in found.stages for reason in step.why] == ["never_ran"] * 3
    assert found.exit_code == 3
    assert repro() == ({"split", "train", "report"}, set())


def test_after_a_run_there_is_nothing_to_do(ran: Path) -> None:
    assert page() == (0, f"{'split':<13} stays\n{'train':<13} stays\n{'report':<13} stays\nplan: 3 stay\n")


def test_a_parameter_is_named_with_both_values_and_what_follows_may_run(ran: Path) -> None:
    edit("params.yaml", "1e-3", "2e-3")
    found = planned()
    assert actions(found) == {"split": "stay", "train": "run", "report": "maybe"}
    [reason] = found.stages[1].why
    assert (reason.kind, reason.name, reason.text) == ("param", "train.lr", "train.lr 0.001 -> 0.002")
    assert (reason.old, reason.new) == (1e-3, 2e-3)
    assert found.stages[2].waits_for == ["train"]
    assert repro() == ({"train"}, set())  # the model did not change


def test_a_value_that_is_emptied_or_a_key_that_is_removed_is_said_so(ran: Path) -> None:
    edit("params.yaml", "  schedule: linear\n", "  embedding_lr: 0.5\n")
    repro()
    edit("params.yaml", "  embedding_lr: 0.5\n", "  embedding_lr:\n  ema: 0.5\n")
    why = planned().stages[1].why
    assert [reason.text for reason in why] == ["train.ema (absent) -> 0.5", "train.embedding_lr 0.5 -> (not set)"]
    assert [(reason.old, reason.new) for reason in why] == [(None, 0.5), (0.5, None)]


def test_a_run_of_the_run_cache_is_restored_and_names_its_commit(ran: Path) -> None:
    commit = git("rev-parse", "HEAD")
    edit("params.yaml", "1e-3", "2e-3")
    edit("data/raw/two", "second", "other")
    repro()
    git("checkout", "-q", "params.yaml", "data/raw/two")
    found = planned()
    assert actions(found) == {"split": "restore", "train": "restore", "report": "restore"}
    assert {step.made_by for step in found.stages} == {f"commit {commit[:10]} (the first run)"}
    assert texts(found, "split") == ["data/raw/two changed"] or texts(found, "split") == ["data/raw changed"]
    assert repro() == (set(), {"split", "train", "report"})


def test_a_run_of_an_experiment_names_the_experiment(ran: Path) -> None:
    with Repo() as repo:
        repo.experiments.run(params=["train.lr=0.5"], name="hot-start")
    git("checkout", "-q", ".")
    repro()
    edit("params.yaml", "1e-3", "0.5")
    [step] = [step for step in planned().stages if step.stage == "train"]
    assert (step.action, step.made_by) == ("restore", "experiment hot-start")


def test_a_damaged_output_is_restored_and_stops_there_although_the_dry_run_names_more(ran: Path) -> None:
    Path("data/splits/one").chmod(0o644)
    Path("data/splits/one").write_text("damaged")
    found = planned()
    assert actions(found) == {"split": "restore", "train": "stay", "report": "stay"}
    assert texts(found, "split") == ["output data/splits was changed after the run"]
    assert {step.stage for step in found.stages if step.in_dry_run} == dry() == {"split", "train", "report"}
    assert repro() == (set(), {"split"})


def test_a_missing_input_fails_with_exit_code_1(ran: Path) -> None:
    for name in ("one", "two"):
        Path(f"data/raw/{name}").unlink()
    Path("data/raw").rmdir()
    code, text = page()
    assert code == 1
    assert "split         FAILS     data/raw is missing, and no stage writes it; `git checkout data/raw`" in text


def test_a_target_plans_what_it_needs_and_no_more(ran: Path) -> None:
    edit("params.yaml", "seed: 1", "seed: 2")
    assert actions(planned("train")) == {"split": "run", "train": "maybe"}


def test_data_of_dvc_add_is_hashed_again_when_changed_and_fails_when_missing(ran: Path) -> None:
    Path("data/raw/big").write_text("big")
    with Repo() as repo:
        repo.add("data/raw/big")
    repro()
    Path("data/raw/big").chmod(0o644)
    Path("data/raw/big").write_text("bigger")
    found = planned()
    assert actions(found) == {"data/raw/big.dvc": "record", "split": "run", "train": "maybe", "report": "maybe"}
    assert {step.stage for step in found.stages if step.in_dry_run} == dry()
    Path("data/raw/big").unlink()
    assert actions(planned())["data/raw/big.dvc"] == "fail"


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "of `plan` also 3: `dvc repro` has something to do."), (["plan"], "0 nothing to do, 3 something to do, 1 a")],
)
def test_the_help_names_the_exit_code_that_only_plan_has(words: list[str], said: str) -> None:
    shown = CliRunner().invoke(whole_app(), [*words, "--help"], terminal_width=200).stdout
    assert said in " ".join(shown.replace("│", " ").split())


def test_planning_changes_no_file(ran: Path) -> None:
    edit("params.yaml", "1e-3", "2e-3")

    def files() -> dict[str, bytes]:
        kept = (file for file in ran.rglob("*") if file.is_file() and ".dvc/tmp" not in file.as_posix())
        return {file.as_posix(): file.read_bytes() for file in kept if ".git/" not in file.as_posix()}

    before = files()
    planned()
    assert files() == before


CHANGES = (
    lambda roll: edit_any("data/raw/one", roll), lambda roll: edit_any("data/raw/two", roll),
    lambda roll: Path("params.yaml").write_text(PARAMS.replace("1e-3", f"{roll + 1}e-3")),
    lambda roll: Path("params.yaml").write_text(PARAMS.replace("seed: 1", f"seed: {roll}")),
    lambda roll: edit_any("data/splits/one", roll), lambda roll: edit_any("models/model", roll),
    lambda roll: edit_any("metrics.json", roll), lambda roll: Path("page").unlink(missing_ok=True),
    lambda roll: Path("data/note").write_text(str(roll)), lambda roll: lose_object(roll), lambda roll: forget_stage(roll),
    lambda roll: Path("dvc.yaml").write_text(PIPELINE.replace("cat models", "true; " * (roll % 2) + "cat models")),
)  # fmt: skip


def lose_object(roll: int) -> None:
    """Delete an object of DVC's cache; the output in the workspace stays."""
    objects = sorted(file for file in Path(".dvc/cache/files/md5").rglob("*") if file.is_file())
    objects[roll * len(objects) // 4].chmod(0o644)
    objects[roll * len(objects) // 4].unlink()


def forget_stage(roll: int) -> None:
    """Remove the run of a stage from dvc.lock, as a merge can."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"].pop(("split", "train", "report", "")[roll], None)
    Path("dvc.lock").write_text(yaml.safe_dump(lock))


def edit_any(name: str, roll: int) -> None:
    file = Path(name)
    file.unlink(missing_ok=True)  # it may be a link into the cache
    file.parent.mkdir(exist_ok=True)
    file.write_text(("first\n", "firm\n", "FIRST\n", "second\n")[roll])


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed > 0)) for seed in range(4)])
def test_whatever_changes_the_plan_names_what_runs(ran: Path, seed: int) -> None:
    """Rounds of one to three random changes: edits that go back and forth, so that runs are restored too."""
    generator = random.Random(seed)
    seen = set()
    for _ in range(13 if seed else 4):
        for change in generator.sample(CHANGES, generator.randint(1, 3)):
            change(generator.randrange(4))
        found = planned()
        named = {
            action: {s.stage for s in found.stages if s.action == action} for action in ("run", "maybe", "restore")
        }
        sure = {step.stage for step in found.stages if step.action == "run" and not step.waits_for}
        assert {step.stage for step in found.stages if step.in_dry_run} == dry()
        executed, restored = repro()
        assert sure <= executed <= named["run"] | named["maybe"]
        assert named["restore"] <= restored <= named["restore"] | named["maybe"] | (named["run"] - sure)
        assert named["run"] <= executed | restored
        seen |= {action for action, stages in named.items() if stages}
        assert planned().exit_code == 0
    assert "run" in seen
    assert not seed or seen == {"run", "maybe", "restore"}


MISUSES = {
    "an unknown stage": (lambda: None, ["trian"], 2, "dvc.yaml has no stage trian; its stages: split, train, report"),
    "a wrong parameter": (lambda: edit("params.yaml", "lr:", "lrr:"), [], 2, "train.lrr"),
    "params that are no YAML": (lambda: edit("params.yaml", "seed: 1", "seed: ["), [], 2, "params.yaml"),
    "no params": (lambda: Path("params.yaml").unlink(), [], 2, "params.yaml"),
    "a pipeline that is no YAML": (lambda: edit("dvc.yaml", "stages:", "stages: ["), [], 2, "dvc.yaml"),
    "a lock with conflict markers": (
        lambda: Path("dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> other\n"),
        [],
        2,
        "dvc.lock",
    ),
    "a circle": (
        lambda: edit("dvc.yaml", "deps: [data/raw]", "deps: [data/raw, page]"),
        [],
        1,
        "Same item(s) are defined as both",
    ),
    "no DVC": (lambda: Path(".dvc").rename("no-dvc"), [], 1, "`dvc repro` would not start: "),
    "a section that is missing": (lambda: edit("params.yaml", "seed: 1\n", ""), [], 1, "Parameters 'seed' are missing"),
    "a path instead of a stage": (lambda: None, ["../elsewhere"], 2, "dvc.yaml has no stage ../elsewhere"),
    "an unknown option": (lambda: None, ["--steps"], 2, "No such option"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_gives_one_clear_line(ran: Path, name: str) -> None:
    change, arguments, code, message = MISUSES[name]
    change()
    found, text = page(*arguments)
    assert (found, "Traceback" in text) == (code, False)
    assert message in text


def test_while_dvc_works_the_plan_is_refused(ran: Path) -> None:
    with Repo() as repo, repo.lock:
        code, text = page()
    assert code == 1
    assert text.startswith(
        "error: DVC is working in this folder; run this again when it has ended, or see with `codex-ml doctor` what works here ("
    )


def test_a_process_that_holds_several_outputs_is_named_once_and_the_last_error_suggests_doctor(ran: Path) -> None:
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    outputs = [str(Path("data/splits/one").resolve()), str(Path("data/splits/two").resolve())]
    Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": dict.fromkeys(outputs, holder), "read": {}}))
    code, text = page()
    assert (code, text.count("DVC is working"), text.count(f"(PID {os.getpid()}): dvc repro")) == (1, 1, 1)
    named = COMMAND.search(text)  # what `doctor --last-error` suggests
    assert named and named[1] == "codex-ml doctor"


def test_the_schema_of_the_json_is_complete(ran: Path) -> None:
    schema = ReproPlan.model_json_schema()
    assert set(json.loads(page("--json")[1])) == set(schema["properties"])


def test_a_probe_without_packed_rows_says_what_makes_them(ran: Path) -> None:
    edit("params.yaml", "1e-3", "2e-3")
    shutil.rmtree("data/splits")
    code, text = page("--probe")
    assert (code, text) == (
        2,
        "error: --probe trains on data/splits/one, which is missing; run `dvc repro pack` first\n",
    )


def test_a_probe_is_not_made_where_train_stays(ran: Path) -> None:
    assert planned("--probe").probe is None
