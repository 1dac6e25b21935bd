"""The chain of hashes: each change after the run, or during it, is found and named."""

import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from codex_ml.cli.checks.hash_chain import verified_links
from codex_ml.cli.history.stage_chain import chain_at, chain_summary
from codex_ml.cli.param_rules import load_params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.record import cpu_threads, record_path, start_record
from codex_ml.core.syntax_tree import syntax_digest


def links(path=None):
    return [(link.stage, link.role, link.path) for link in verified_links(path)]


FETCH = [
    ("fetch", "output", "data/raw/sample"),
    ("fetch", "output", "reports/fetch/lineage.json"),
    ("fetch", "input", "data/sample.lock"),
    ("fetch", "code", "stages/fetch.py"),
    ("fetch", "params", "fetch"),
    ("fetch", "source", "a==1.0"),
    ("fetch", "source", "b-c==2.0"),
]
SPLIT = [
    ("split", "output", "data/splits"),
    ("split", "output", "reports/split/lineage.json"),
    ("split", "input", "data/raw"),
    ("split", "code", "stages/split.py"),
    ("split", "code", "src/codex_ml/core/io.py"),
    ("split", "params", "seed, split"),
]
TRAIN = [
    ("train", "output", "models/model"),
    ("train", "output", "reports/train/lineage.json"),
    ("train", "input", "data/splits/train.bin"),
    ("train", "code", "stages/train.py"),
    ("train", "params", "seed, train"),
]


def test_an_untouched_chain_holds_link_by_link_back_to_the_sources(chain):
    assert links() == [*TRAIN, *SPLIT, *FETCH]
    assert links("models/model") == [*TRAIN, *SPLIT, *FETCH]
    assert links("data/splits/train.bin") == [*SPLIT, *FETCH]
    assert links("data/raw/sample") == FETCH


@pytest.mark.parametrize(
    ("key", "value"), [("deps", ["extra.txt"]), ("outs", ["extra.txt"]), ("cmd", "python other.py")]
)
def test_a_pipeline_that_was_edited_after_the_run_does_not_hold(chain, key, value):
    chain.write("extra.txt", b"")
    document = json.loads(Path("dvc.yaml").read_bytes())
    body = document["stages"]["train"]
    body[key] = value if key == "cmd" else body[key] + value
    chain.write("dvc.yaml", json.dumps(document).encode())
    with pytest.raises(CheckFailed, match=r"^train: "):
        links()


def test_links_carry_the_hash_that_was_recomputed(chain):
    first = next(verified_links())
    assert first.md5 == hash_path(Path("models/model")).md5


def test_a_folder_with_results_of_many_stages_is_verified_whole(chain):
    """`codex-ml verify data` must not stop at the first stage that writes below data."""
    chain.write("data/splits/train.bin", b"x")
    with pytest.raises(CheckFailed):
        links("data")


def test_the_whole_repository_as_a_path_is_verified_whole(chain):
    chain.write("models/model/weights", b"x")
    with pytest.raises(CheckFailed):
        links(".")


def test_unknown_results_are_reported_with_the_known_ones(chain):
    with pytest.raises(UserError, match=r"^models/other is not an output of the pipeline; outputs: data/raw/sample, "):
        links("models/other")


def change(name, data):
    return lambda chain: chain.write(name, data)


def edited_while_running(chain):
    chain.write("src/codex_ml/core/io.py", b"edited = True\n")
    chain.lock(record=False)


def lost_pin(chain):
    lock = Path("data/sample.lock")
    lock.write_text(lock.read_text().split("\n")[0])
    chain.lock()


def pinned_but_absent(chain):
    Path("data/raw/sample/a-1.0-py3-none-any.whl").unlink()
    chain.lock()


def lock_with_one_dep_more(stages):
    stages["split"]["deps"].append({"path": "extra.txt", "md5": "0" * 32})


def lock_with_other_params(stages):
    stages["train"]["params"]["params.yaml"]["train"] = {"lr": 0.1}


TAMPERED = {
    "a changed output": (
        change("models/model/weights", b"w"),
        "train: output models/model was changed after the run; dvc.lock has ",
    ),
    "an emptied output": (
        change("models/model/config.json", b""),
        "train: output models/model was changed after the run",
    ),
    "an added file": (change("models/model/new.bin", b""), "train: output models/model was changed after the run"),
    "a deleted file": (
        lambda chain: Path("models/model/config.json").unlink(),
        "train: output models/model was changed after the run",
    ),
    "a renamed file": (
        lambda chain: Path("models/model/weights").rename("models/model/weights2"),
        "train: output models/model was changed",
    ),
    "a deleted output": (
        lambda chain: Path("models/model").rename("gone"),
        "train: models/model is missing; `dvc repro` or `dvc checkout` brings it back",
    ),
    "a changed record": (
        change("reports/train/lineage.json", b"{}"),
        "train: output reports/train/lineage.json was changed",
    ),
    "changed code": (change("stages/train.py", b"# other\n"), "train: code stages/train.py was changed after the run"),
    "changed library": (
        change("src/codex_ml/core/io.py", b"# other\n"),
        "split: code src/codex_ml/core/io.py was changed after the run",
    ),
    "a changed input": (change("data/sample.lock", b""), "fetch: input data/sample.lock was changed after the run"),
    "a changed own document": (
        change("data/raw/mine/own.txt", b"x"),
        "split: input data/raw was changed after the run",
    ),
    "a changed file that a later stage reads": (
        change("data/splits/train.bin", b"x"),
        "train: input data/splits/train.bin was changed after the run",
    ),
    "a changed parameter": (
        change("params.yaml", b"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: 1e-4\n"),
        "train: params.yaml train differs from the recorded value; run `dvc repro`",
    ),
    "a changed default": (
        change("params.yaml", b"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: 3e-4\n  beta1: 0.8\n"),
        "train: params.yaml train differs from the recorded value; run `dvc repro`",
    ),
    "other parameters in the lock": (
        lambda chain: chain.edit_lock(lock_with_other_params),
        "train: params.yaml train differs from dvc.lock; run `dvc repro`",
    ),
    "an edit while the stage ran": (
        edited_while_running,
        "split: src/codex_ml/core/io.py was changed in more than comments, docstrings or layout: it was edited while the "
        "stage ran, or later and recorded by `dvc commit`. The stage started with src/codex_ml/core/io.py ",
    ),
    "a dep in the lock only": (
        lambda chain: chain.edit_lock(lock_with_one_dep_more),
        "split: extra.txt is in only one of dvc.yaml and dvc.lock; run `dvc repro`",
    ),
    "a wheel without pin": (lost_pin, "fetch: data/raw/sample/b_c-2.0-py3-none-any.whl has sha256 "),
    "a pin without wheel": (
        pinned_but_absent,
        "fetch: a==1.0 is pinned in data/sample.lock but not in data/raw/sample",
    ),
    "an output that the lock does not know": (
        lambda chain: chain.edit_lock(lambda stages: stages["train"]["outs"].pop(0)),
        "train: ",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_changed_is_found_and_named(chain, case):
    tamper, message = TAMPERED[case]
    tamper(chain)
    with pytest.raises(CheckFailed) as error:
        links()
    assert str(error.value).startswith(message)


def test_every_flipped_byte_of_every_artifact_is_found(chain):
    dice = random.Random(20)
    files = [
        f
        for name in ("data", "models", "stages", "src", "reports")
        for f in sorted(Path(name).rglob("*"))
        if f.is_file()
    ]
    assert (
        len(files) == len(chain.FILES) - 2 + 1 + 3
    )  # without params.yaml and pyproject.toml, with sample.lock and three records
    for file in files * 2:
        good = file.read_bytes()
        place = dice.randrange(len(good))
        file.write_bytes(good[:place] + bytes([good[place] ^ dice.randrange(1, 256)]) + good[place + 1 :])
        with pytest.raises(CheckFailed):
            links()
        file.write_bytes(good)
    assert len(links()) == 18


def test_the_changed_file_of_a_folder_is_named_where_dvc_has_its_listing(chain):
    model = Path("models/model")
    digest = hash_path(model).md5
    entries = [{"md5": hash_path(model / name).md5, "relpath": name} for name in ("config.json", "weights")]
    chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", json.dumps(entries).encode())
    for tamper, named in (
        (lambda: chain.write("models/model/new/x.bin", b""), "models/model/new/x.bin (added)"),
        (lambda: chain.write("models/model/weights", b"x"), "models/model/weights was"),
        (lambda: (model / "config.json").unlink(), "models/model/config.json (missing)"),
    ):
        tamper()
        with pytest.raises(CheckFailed, match="train: output ") as error:
            links()
        assert named in str(error.value)


def test_a_stage_that_has_not_run_is_reported(chain):
    chain.edit_lock(lambda stages: stages.pop("split"))
    with pytest.raises(UserError, match=r"^dvc\.lock does not know stage split; run `dvc repro`$"):
        links()
    Path("dvc.lock").unlink()
    with pytest.raises(UserError, match=r"^dvc\.lock is missing"):
        links()


def test_without_the_sample_no_pins_are_asked_for(chain):
    chain.write("params.yaml", b"fetch: {sample: false}\n")
    for wheel in Path("data/raw/sample").iterdir():
        wheel.unlink()
    chain.lock()
    assert ("fetch", "source", "a==1.0") not in links()
    assert ("fetch", "params", "fetch") in links()


def test_the_files_of_benchmarks_are_compared_with_their_pins(chain):
    """Of the wheel of a benchmark only one file is kept, so its own hash is the link."""
    data = b"a benchmark"
    file = f"--file=tiny/tiny.jsonl --file-hash=sha256:{hashlib.sha256(data).hexdigest()}"
    lock = Path("data/sample.lock").read_text()
    chain.write("data/sample.lock", f"{lock}\nbenchmark c==3.0 --hash=sha256:{'0' * 64} {file}\n".encode())
    chain.write("params.yaml", b"fetch: {benchmarks: true}\n")
    chain.write("data/benchmarks/sample/tiny.jsonl", data)
    chain.lock()
    assert [link[2] for link in links("data/raw/sample") if link[1] == "source"] == [
        "a==1.0",
        "b-c==2.0",
        "c==3.0: tiny/tiny.jsonl",
    ]
    chain.write("data/benchmarks/sample/tiny.jsonl", b"another benchmark")
    with pytest.raises(CheckFailed, match=r"^fetch: data/benchmarks/sample/tiny\.jsonl has sha256 .* does not pin$"):
        links()
    Path("data/benchmarks/sample/tiny.jsonl").unlink()
    with pytest.raises(
        CheckFailed,
        match=r"^fetch: c==3\.0: tiny/tiny\.jsonl is pinned in data/sample\.lock but not in data/benchmarks",
    ):
        links()


def test_a_record_has_what_was_read_and_nothing_of_time_or_machine(chain):
    record = start_record(load_pipeline()["split"], load_params())
    record["environment"].pop("start_code")  # of the tests
    assert record == json.loads(record_path("split").read_bytes())
    assert list(record["deps"]) == ["data/raw", "src/codex_ml/core/io.py", "stages/split.py"]
    io = Path("src/codex_ml/core/io.py")
    syntax = {"io.py": syntax_digest(io.read_bytes())}
    assert record["deps"][io.as_posix()] == {**vars(hash_path(io)), "syntax": syntax}
    assert (record["stage"], record["params"]["seed"], record["command"]) == ("split", 7, "python -P stages/split.py")
    assert record["params"]["split"]["val"] == 0.1
    assert record["params"].keys() == {"seed", "split"}
    assert record["environment"]["packages"]["dvc"]
    assert str(chain.folder) not in json.dumps(record)


def test_a_record_names_every_missing_dependency_and_packages_that_are_not_there(chain, monkeypatch):
    project = Path("pyproject.toml")
    project.write_text(project.read_text().replace("dvc>=3", "no-such-package"))
    spec = load_pipeline()["split"]
    assert start_record(spec, load_params())["environment"]["packages"] == {"no-such-package": None}
    Path("stages/split.py").unlink()
    Path("src/codex_ml/core/io.py").unlink()
    with pytest.raises(
        UserError,
        match=r"^split: stages/split\.py, src/codex_ml/core/io\.py is missing; put it there, or bring it back with `git checkout`",
    ):
        start_record(spec, load_params())


@pytest.fixture
def library(chain):
    """Stage train depends on a folder of code."""
    for name in ("loop.py", "model/build.py"):
        chain.write(f"src/codex_ml/train/{name}", b"# code\n")
    document = json.loads(Path("dvc.yaml").read_bytes())
    document["stages"]["train"]["deps"].append("src/codex_ml/train")
    chain.write("dvc.yaml", json.dumps(document).encode())
    chain.lock()
    return chain


def test_a_record_lists_the_files_of_a_folder_of_code_and_of_no_folder_of_data(library):
    deps = json.loads(record_path("train").read_bytes())["deps"]
    code = Path("src/codex_ml/train")
    files = {name: hash_path(code / name).md5 for name in ("loop.py", "model/build.py")}
    syntax = dict.fromkeys(files, syntax_digest(b""))  # the files hold comments only
    assert deps["src/codex_ml/train"] == {**vars(hash_path(code)), "files": files, "syntax": syntax}
    assert "files" not in deps["stages/train.py"]
    assert "files" not in json.loads(record_path("split").read_bytes())["deps"]["data/raw"]
    assert len(links("models/model")) == len([*TRAIN, *SPLIT, *FETCH]) + 1


LATER = {
    "edited": (lambda: Path("src/codex_ml/train/loop.py").write_bytes(b"# x\n"), "loop.py"),
    "added": (lambda: Path("src/codex_ml/train/new.py").write_bytes(b""), "new.py (added)"),
    "gone": (lambda: Path("src/codex_ml/train/model/build.py").unlink(), "model/build.py (missing)"),
}


@pytest.mark.parametrize("case", LATER)
def test_the_file_of_the_library_that_changed_after_the_run_is_named(library, case):
    change, name = LATER[case]
    change()
    with pytest.raises(CheckFailed) as error:
        links()
    assert str(error.value).startswith(
        f"train: code src/codex_ml/train/{name} was changed after the run; dvc.lock has "
    )


def test_the_file_of_the_library_that_was_edited_while_the_stage_ran_is_named(library):
    library.write("src/codex_ml/train/loop.py", b"edited = True\n")
    library.lock(record=False)
    with pytest.raises(CheckFailed) as error:
        links()
    assert str(error.value).startswith(
        "train: src/codex_ml/train/loop.py was changed in more than comments, docstrings or layout: it was edited while "
    )
    assert str(error.value).endswith("run `dvc repro --force --single-item train`"), "--force alone runs all before it"
    library.write("src/codex_ml/train/loop.py", b"# code\n")  # put back: no file differs from the start
    with pytest.raises(CheckFailed, match=r"^train: src/codex_ml/train was changed: it was edited while the ") as error:
        links()
    assert str(error.value).endswith("`codex-ml accept-code` records that")


def test_a_comment_that_was_edited_after_the_start_is_accepted_and_listed(library):
    library.write("src/codex_ml/train/loop.py", b"# another\n")
    with pytest.raises(CheckFailed, match=r"only comments, docstrings or layout differ, and `codex-ml accept-code`"):
        links()
    library.lock(record=False)  # as accept-code or `dvc commit` leave it
    found = [link for link in verified_links("models/model") if link.role == "accepted"]
    assert [(link.stage, link.path, link.md5) for link in found] == [
        ("train", "src/codex_ml/train/loop.py", syntax_digest(b""))
    ]
    *_, last = chain_summary("models/model", chain_at("models/model"), None)
    said = "only comments, docstrings or layout differ from the file that ran in train"
    assert last == f"accepted      src/codex_ml/train/loop.py: {said}"
    library.write("stages/train.py", b"x = 1\n")
    with pytest.raises(CheckFailed, match=r"^train: code stages/train\.py was changed after the run; dvc\.lock has "):
        links()


def test_no_docstring_is_accepted_where_code_of_the_stage_reads_docstrings(library):
    library.write("src/codex_ml/train/model/build.py", b"help = loop.__doc__\n")
    library.lock()
    library.write("src/codex_ml/train/loop.py", b"'Another.'\n")
    library.lock(record=False)
    with pytest.raises(CheckFailed, match=r"loop\.py was changed, and src/codex_ml/train/model/build\.py reads docst"):
        links()


def test_without_a_digest_of_the_syntax_no_edit_of_code_is_accepted(library):
    record = json.loads(record_path("train").read_bytes())
    del record["deps"]["src/codex_ml/train"]["syntax"]  # as records before had it
    library.write("src/codex_ml/train/loop.py", b"# another\n")
    library.lock(record=False)
    library.write(RECORD, json.dumps(record).encode())
    renewed_hash(library, RECORD)
    with pytest.raises(CheckFailed, match=r"loop\.py was changed, and the record has no digest of its syntax tree; "):
        links()


@pytest.mark.parametrize("files", [1, [], {"loop.py": None}, {"loop.py": 1}])
def test_a_list_of_files_of_another_shape_is_a_finding(library, files):
    record = json.loads(record_path("train").read_bytes())
    record["deps"]["src/codex_ml/train"]["files"] = files
    library.write(RECORD, json.dumps(record).encode())
    renewed_hash(library, RECORD)
    with pytest.raises(
        CheckFailed, match=r"^reports/train/lineage\.json: deps: src/codex_ml/train: expected `files` to "
    ):
        links()


def test_threads_are_those_that_were_asked_for_or_all_cores():
    assert cpu_threads(3) == 3
    assert cpu_threads(0) >= 1


def test_the_changed_file_is_named_where_only_a_later_stage_knows_it(chain):
    chain.write("data/splits/train.bin", b"x")
    with pytest.raises(CheckFailed, match=r"^split: output data/splits/train\.bin was changed after the run; "):
        links("data/splits")
    Path("data/splits/train.bin").unlink()
    with pytest.raises(CheckFailed, match=r"^split: output data/splits/train\.bin \(missing\) was changed"):
        links("data/splits")


def test_the_changed_file_is_named_where_dvc_add_knows_it(chain):
    for name in ("one.txt", "two.txt"):
        chain.write(f"data/raw/mine/{name}", name.encode())
        pointer = {"outs": [{"md5": hash_path(Path(f"data/raw/mine/{name}")).md5, "hash": "md5", "path": name}]}
        chain.write(f"data/raw/mine/{name}.dvc", json.dumps(pointer).encode())
    chain.write("data/raw/broken.dvc", b"<<<<<<< HEAD\n")
    chain.lock()
    chain.write("data/raw/mine/two.txt", b"x")
    with pytest.raises(CheckFailed, match=r"^split: input data/raw/mine/two\.txt was changed after the run; "):
        links("data/splits")


def test_a_list_of_dvc_that_was_damaged_itself_accuses_no_file(chain):
    digest = hash_path(Path("models/model")).md5
    chain.write("models/model/weights", b"x")
    for listing in (
        b"",
        b"[]",
        b"{",
        b'[{"md5": 1}]',
        json.dumps([{"md5": "0" * 32, "relpath": "config.json"}]).encode(),
    ):
        chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", listing)
        with pytest.raises(CheckFailed, match=r"^train: output models/model was changed after the run; "):
            links()


def test_the_list_is_looked_for_where_dvc_keeps_its_cache(chain):
    model = Path("models/model")
    digest = hash_path(model).md5
    files = [{"md5": hash_path(f).md5, "relpath": f.name} for f in sorted(model.iterdir())]
    chain.write(f"elsewhere/files/md5/{digest[:2]}/{digest[2:]}", json.dumps(files).encode())
    chain.write(
        ".dvc/config",
        b"[core]\n    analytics = false\n[cache]\n    dir = ../elsewhere\n['remote \"x\"']\n    url = /x\n",
    )
    chain.write("models/model/weights", b"x")
    with pytest.raises(CheckFailed, match=r"^train: output models/model/weights was changed"):
        links()
    chain.write(".dvc/config", b"\xff = [")
    with pytest.raises(CheckFailed, match=r"^train: output models/model was changed"):
        links()


SWAPS = (None, 0, -1.5, True, "", "x", [], ["x"], [None], {}, {"x": None}, [{}], [{"path": "x", "md5": "y"}])


def nodes(value, place=()):
    """Every node of a JSON value, as the keys that lead to it."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*place, key))


def swapped(value, place, new):
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = swapped(copy[place[0]], place[1:], new)
    return copy


def outcome(file):
    """A finding, or no finding at all; whatever else is raised fails the test."""
    try:
        links()
    except CheckFailed as error:
        return str(error)
    except UserError as error:  # only these two: what was never there was not damaged
        assert str(error).endswith(("run `make repro` first", "; run `dvc repro`")), error
        return str(error)
    return ""


RECORD = "reports/train/lineage.json"


def renewed_hash(chain, name):
    """dvc.lock has the hash of the damaged file, so that the file itself is read."""
    md5 = hash_path(Path(name)).md5
    entry = {"path": name, "md5": md5}
    chain.edit_lock(lambda stages: stages["train"].update(outs=[stages["train"]["outs"][0], entry]))


@pytest.mark.parametrize("most", [20, pytest.param(80, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml", RECORD])
def test_a_file_of_any_shape_is_a_finding_and_never_a_traceback(chain, name, most):
    if name == "params.yaml":
        chain.write(name, json.dumps({"seed": 7, "split": {"val": 0.1}, "train": {"lr": 3e-4}}).encode())
        chain.lock()
    good, lock = Path(name).read_bytes(), Path("dvc.lock").read_bytes()
    document, dice = json.loads(good), random.Random(5)
    every = [(place, new) for place in nodes(document) for new in SWAPS]
    found = 0
    chosen = dice.sample(every, min(len(every), most))
    for place, new in chosen:
        chain.write(name, json.dumps(swapped(document, place, new)).encode())
        if name == RECORD:
            renewed_hash(chain, name)
        found += bool(outcome(name))
        chain.write("dvc.lock", lock)
        chain.write(name, good)
    assert found > len(chosen) / 2
    assert outcome(name) == ""


@pytest.mark.parametrize("each", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml", RECORD, "data/sample.lock"])
def test_bytes_that_were_cut_or_flipped_are_a_finding_and_never_a_traceback(chain, name, each):
    good, lock = Path(name).read_bytes(), Path("dvc.lock").read_bytes()
    dice = random.Random(6)
    damaged = [b"", b"\xff\xfe", b"\0", b"<<<<<<< HEAD\n" + good]
    damaged += [good[: dice.randrange(len(good))] for _ in range(each)]
    for place in (dice.randrange(len(good)) for _ in range(each)):
        damaged.append(good[:place] + bytes([good[place] ^ dice.randrange(1, 256)]) + good[place + 1 :])
    for data in damaged:
        chain.write(name, data)
        if name == RECORD:
            assert outcome(name) or data == good
            renewed_hash(chain, name)
            outcome(name)
        elif name == "data/sample.lock":
            outcome(name)
            chain.lock()
            outcome(name)
        else:
            outcome(name)
        chain.write("dvc.lock", lock)
        chain.write(name, good)


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", RECORD, "data/sample.lock", "models/model", "data/splits"])
def test_what_is_neither_a_file_nor_a_folder_is_named(chain, name):
    path = Path(name)
    path.rename("away")
    for make in (lambda: path.mkdir(), lambda: os.mkfifo(path), lambda: path.symlink_to("nowhere")):
        make()
        try:
            with pytest.raises((CheckFailed, UserError, IsADirectoryError)) as error:
                links()
            assert name in str(error.value)
        finally:
            path.rmdir() if path.is_dir() else path.unlink()


def test_what_dvc_cannot_hash_is_a_finding(chain):
    """Put there after the run: a failed check, not a mistake in the command."""
    os.mkfifo("data/raw/mine/pipe")
    with pytest.raises(CheckFailed, match=r"^split: data/raw/mine/pipe is a FIFO, for which DVC would wait forever"):
        links()


def test_a_link_that_became_another_is_a_finding(chain):
    """DVC cannot tell a link inside a folder from a copy; the corpus lists links."""
    Path("data/raw/mine/alias").symlink_to("own.txt")
    chain.lock()
    links()
    Path("data/raw/mine/alias").unlink()
    Path("data/raw/mine/alias").write_bytes(b"own text")
    with pytest.raises(CheckFailed, match=r"^split: input data/raw was changed after the run"):
        links()
