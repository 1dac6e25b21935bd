"""`codex-ml lineage`: the chain of one run at any revision, and never one that mixes two."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.history.stage_chain import chain_at, chain_summary
from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import load_params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.events import run_id
from codex_ml.core.hashing import hash_path
from codex_ml.core.io import write_json
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.record import record_path, start_record
from codex_ml.core.side_note import GitState, SideNote, forget_side_note, note_resolved, write_side_note


def git(*arguments):
    who = ["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def as_json(*arguments):
    return [step.as_json() for step in chain_at(*arguments)]


def test_lineage_at_a_git_revision_is_that_of_the_revision(chain):
    git("init", "-q")
    git("add", "dvc.yaml", "dvc.lock", "params.yaml", "reports")
    git("commit", "-qm", "one")
    old = as_json("models/model")
    chain.write("models/model/weights", b"second model")
    chain.write("params.yaml", b"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: 1e-2\n")
    chain.lock()
    git("commit", "-qam", "two")
    git("tag", "second")
    assert [step["stage"] for step in old] == ["train", "split", "fetch"]
    assert as_json("models/model", "HEAD~1") == old
    new = as_json("models/model", "second")
    assert new == as_json("models/model")
    assert old[0]["params"]["train"] == {"lr": 3e-4}
    assert new[0]["params"]["train"] == {"lr": 1e-2}
    assert new[0]["outs"]["models/model"] == hash_path(Path("models/model")).md5 != old[0]["outs"]["models/model"]
    assert old[0]["record"]["params"]["train"]["lr"] == 3e-4
    assert new[1]["deps"] == old[1]["deps"]


def test_the_screen_names_the_commit_and_says_what_is_not_in_it(chain):
    git("init", "-q")
    git("add", "dvc.yaml", "dvc.lock", "params.yaml", "reports")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    assert list(chain_summary("models/model", chain_at("models/model"), None))[1] == f"commit  {commit}"
    assert list(chain_summary("models/model", chain_at("models/model", "HEAD"), "HEAD"))[1] == f"commit  {commit}"
    chain.write("models/model/weights", b"second model")
    chain.lock()
    changed = f"commit  {commit}, with changes to dvc.lock, dvc.yaml or params.yaml that are not in it"
    assert list(chain_summary("models/model", chain_at("models/model"), None))[1] == changed


def test_a_file_inside_a_result_has_its_own_hash_where_dvc_has_the_list(chain):
    steps = chain_at("models/model/weights")
    digest = hash_path(Path("models/model")).md5
    assert next(chain_summary("models/model/weights", steps, None)) == f"models/model/weights  in models/model {digest}"
    files = [{"md5": hash_path(f).md5, "relpath": f.name} for f in sorted(Path("models/model").iterdir())]
    chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", json.dumps(files).encode())
    assert next(chain_summary("models/model/weights", steps, None)).split() == ["models/model/weights", files[1]["md5"]]
    assert next(chain_summary("models", chain_at("models"), None)) == "models  holds models/model"


def rerun(chain, *names):
    """What `dvc repro` leaves when it has run only some of the stages."""
    before = json.loads(Path("dvc.lock").read_bytes())["stages"]
    records = {name: record_path(name).read_bytes() for name in before}
    chain.lock()
    for name in before.keys() - set(names):
        chain.edit_lock(lambda stages, name=name: stages.update({name: before[name]}))
        chain.write(record_path(name).as_posix(), records[name])
    for name in names:  # the hash of the record in the lock belongs to the record
        write_json(record_path(name), start_record(load_pipeline()[name], load_params()))


def new_data_split_only(chain):
    chain.write("data/splits/train.bin", b"other tokens")
    rerun(chain, "split")


def new_seed_train_only(chain):
    chain.write("params.yaml", b"seed: 8\nsplit:\n  val: 0.1\ntrain:\n  lr: 3e-4\n")
    rerun(chain, "train")


def shared_code_split_only(chain):
    document = json.loads(Path("dvc.yaml").read_bytes())
    document["stages"]["train"]["deps"].append("src/codex_ml/core/io.py")
    chain.write("dvc.yaml", json.dumps(document).encode())
    chain.lock()
    chain.write("src/codex_ml/core/io.py", b"# new\n")
    rerun(chain, "split")


def record_only(chain):
    chain.write("stages/train.py", b"# new\n")
    write_json(record_path("train"), start_record(load_pipeline()["train"], load_params()))


def new_dep_in_the_pipeline(chain):
    document = json.loads(Path("dvc.yaml").read_bytes())
    document["stages"]["train"]["deps"].append("src/codex_ml/core/io.py")
    chain.write("dvc.yaml", json.dumps(document).encode())


MIXED = {
    "split after train, the list of the folder known": (new_data_split_only, "train read data/splits/train.bin "),
    "train with another seed than split": (new_seed_train_only, "train ran with another seed in params.yaml than split"),
    "split with newer shared code than train": (shared_code_split_only, "train read src/codex_ml/core/io.py "),
    "a stage that was killed after its start": (record_only, "reports/train/lineage.json belongs to a start with another stages/train.py than dvc.lock has"),
    "a pipeline that was edited": (new_dep_in_the_pipeline, "train ran with other deps, outs or cmd than dvc.yaml has"),
}  # fmt: skip


@pytest.mark.parametrize("case", MIXED)
def test_a_lock_of_two_runs_is_never_shown_as_one(chain, case):
    assert len(chain_at("models/model")) == 3
    change, message = MIXED[case]
    change(chain)
    digest = hash_path(Path("data/splits")).md5
    splits = Path("data/splits")
    files = sorted((f.relative_to(splits).as_posix(), hash_path(f).md5) for f in splits.rglob("*") if f.is_file())
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in files], sort_keys=True)
    chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", listing.encode())
    with pytest.raises(CheckFailed) as error:
        chain_at("models/model")
    assert str(error.value).startswith("dvc.lock holds stages of several runs: ")
    assert message in str(error.value)
    assert str(error.value).endswith(". Run `dvc repro`, or name a commit of one run with --rev")


def test_what_lies_before_the_mixture_is_still_shown(chain):
    new_data_split_only(chain)
    assert [step.spec.name for step in chain_at("data/splits")] == ["split", "fetch"]


def in_cache(chain, name):
    """DVC keeps a file by its hash."""
    digest = hash_path(Path(name)).md5
    chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", Path(name).read_bytes())


def test_a_record_that_is_not_in_git_comes_from_the_cache_by_the_hash_of_its_revision(chain):
    git("init", "-q")
    git("add", "dvc.yaml", "dvc.lock", "params.yaml")
    git("commit", "-qm", "one")
    in_cache(chain, "reports/train/lineage.json")
    old = as_json("models/model")
    chain.write("params.yaml", b"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: 1e-2\n")
    chain.lock()
    git("commit", "-qam", "two")
    shown = as_json("models/model", "HEAD~1")
    assert shown[0]["record"] == old[0]["record"]
    assert shown[0]["record"]["params"]["train"]["lr"] == 3e-4
    assert [step["record"] for step in shown[1:]] == [None, None]


def test_the_screen_shows_results_and_reports_only_of_a_stage_that_writes_nothing_else(chain):
    document = json.loads(Path("dvc.yaml").read_bytes())
    document["stages"]["fetch"]["outs"] = ["reports/fetch/details.json", "reports/fetch/lineage.json"]
    document["stages"]["split"]["outs"].append("reports/split/details.json")
    chain.write("dvc.yaml", json.dumps(document).encode())
    for name in ("fetch", "split"):
        chain.write(f"reports/{name}/details.json", b"{}")
    chain.lock()
    lines = [line for name in ("data/splits", "reports/fetch") for line in chain_summary(name, chain_at(name), None)]
    digests = {name: hash_path(Path(name)).md5[:12] for name in ("data/splits", "reports/fetch/details.json")}
    assert f"split         data/splits {digests['data/splits']}" in lines
    assert f"fetch         reports/fetch/details.json {digests['reports/fetch/details.json']}" in lines


def test_lineage_of_a_stage_without_record_says_so(chain):
    record_path("split").unlink()
    steps = {step.spec.name: step for step in chain_at("models/model")}
    assert steps["split"].record is None
    assert steps["train"].record["stage"] == "train"


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("--output=x", "'--output=x' is not a Git revision or an experiment of this clone; "),
        ("", "'' is not a Git revision or an experiment of this clone; "),
        ("nowhere", "'nowhere' is not a Git revision or an experiment of this clone; "),
        ("a[1]", "'a[1]' is not a Git revision or an experiment of this clone; "),
    ],
)
def test_an_unknown_revision_is_reported_and_never_read_as_an_option(chain, revision, message):
    git("init", "-q")
    with pytest.raises(UserError) as error:
        chain_at("models/model", revision)
    assert str(error.value).startswith(message)
    assert not Path("x").exists()


def test_a_chain_that_has_not_run_is_reported(chain):
    chain.edit_lock(lambda stages: stages.pop("split"))
    with pytest.raises(UserError, match=r"^dvc\.lock does not know stage split; run `dvc repro`$"):
        chain_at("models/model")
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match=r"^dvc\.lock is missing; run `make repro` first$"):
        chain_at("models/model")


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_regular_file_is_named_and_never_waited_for(chain, name, make):
    Path(name).unlink()
    make(name)
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        list(chain_at("models/model"))


def test_a_stage_that_ran_here_shows_run_commit_and_machine(chain):
    git("init", "-q")
    git("add", "dvc.yaml", "dvc.lock", "params.yaml", "reports")
    git("commit", "-qm", "one")
    write_side_note("train", GitState())
    note_resolved(device="cuda", precision="bf16")
    forget_side_note()
    steps = chain_at("models/model")
    (line,) = [line for line in chain_summary("models/model", steps, None) if " run " in line]
    assert line.startswith(f"{'':13} run {run_id()} at commit {git('rev-parse', 'HEAD')[:12]}, CPython ")
    assert line.endswith(", cuda, bf16")
    assert not [line for line in chain_summary("models/model", steps, "HEAD") if " run " in line]
    done = CliRunner().invoke(whole_app(), ["lineage", "models/model", "--json"])
    environments = {step["stage"]: step["environment"] for step in json.loads(done.stdout)}
    assert SideNote.model_validate(environments["train"]).run == run_id()
    assert (environments["split"], environments["fetch"]) == (None, None)
