"""`codex-ml compare`: results by their names, as text, as JSON and as a page."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.core.hashing import hash_path

from ..json_schema_checker import problems

NLL = np.random.default_rng(7).lognormal(4, 0.5, size=30).tolist()
BETTER = [value * 0.9 for value in NLL]
HOSTILE = '\x1b[31m</td><script>alert(1)</script>\u202e{{ 7*7 }}\n" onload=x'


def digest(nll: list[float]) -> str:
    return hashlib.sha256(repr(nll).encode()).hexdigest()


def git(*arguments: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def run(*arguments: object, code: int = 0) -> str:
    """What the command prints: on stdout if it succeeds, else its line of error."""
    done = CliRunner().invoke(whole_app(), ["compare", *map(str, arguments)])
    assert done.exit_code == code, done.output
    if code:
        assert done.stderr.count("\n") == 1, "an error is one line"
    return done.stderr if code else done.stdout


@pytest.fixture
def folders(tmp_path, monkeypatch, written_result):
    """The current folder, outside of any repository, holds the result folders `old` and `new`."""
    monkeypatch.chdir(tmp_path)
    written_result(NLL).write(tmp_path / "old")
    written_result(BETTER).write(tmp_path / "new")
    return tmp_path


def test_two_folders_are_compared_as_a_table(folders):
    lines = run("old", "new").splitlines()
    assert lines[:2] == ["  A  old  folder", "  B  new  folder"]
    assert lines[3] == "documents: 30 items, 30 units"
    assert lines[4].split() == ["A", "B", "B", "-", "A", "interval", "p", "p", "(Holm)", "B", "is"]
    row = re.fullmatch(
        r"  bits_per_byte +([\d.]+) +([\d.]+) +(-[\d.]+) +(-[\d.]+) to (-[\d.]+) +0.0001 +0.0003 +better", lines[5]
    )
    assert row
    a, b, difference, low, high = map(float, row.groups())
    assert a == pytest.approx(sum(NLL) / np.log(2) / 3000, abs=5e-5)
    assert b == pytest.approx(0.9 * a, abs=1e-4)
    assert low < difference < high
    assert lines[7].split()[-1] == "equal"
    assert lines[-1] == (
        "Intervals: 95%, paired over units, 1000 resamples. p: exact or by randomisation per unit; p (Holm) counts the 3 "
        "tests of this comparison. B is better or worse where p (Holm) is below 0.05."
    )


def test_each_of_several_results_is_compared_with_the_first(folders):
    found = json.loads(run("old", "new", "old", "--json"))
    assert problems(found, output_schema("compare")) == []
    pairs = [(c["a"]["name"], c["b"]["name"]) for c in found["comparisons"]]
    assert pairs == [("old", "new"), ("old", "old")]
    assert found["family"] == 6
    assert {m["verdict"] for m in found["comparisons"][1]["metrics"]} == {"equal"}


def test_the_number_of_listed_items_is_a_choice(folders):
    assert "gain  doc" in run("old", "new")
    assert "gain" not in run("old", "new", "--top", 0)
    assert "bits_per_byte by item: 30 better, 0 worse" in run("old", "new", "--top", 0)


def test_records_beside_the_results_tell_what_differs(folders):
    def record(folder: str, lr: float, **files: str) -> None:
        hashes = {"md5": "0" * 32, "sha256": folder.ljust(64, "0"), "size": 1}
        deps = {"data/splits": hashes, "src/codex_ml/core": {**hashes, "files": files}}
        environment = {"python": "3.11.7", "machine": "x", "threads": 2, "packages": {"torch": f"2.{len(files)}"}}
        record = {
            "schema": "codex-ml/lineage/1",
            "stage": "evaluate",
            "command": "c",
            "params": {"train": {"lr": lr}, "seed": 1},
        }
        Path(folder, "lineage.json").write_text(json.dumps({**record, "deps": deps, "environment": environment}))

    record("old", 0.003, **{"io.py": "1" * 32, "gone.py": "2" * 32})
    record("new", 0.002, **{"io.py": "3" * 32})
    (comparison,) = json.loads(run("old", "new", "--json"))["comparisons"]
    assert comparison["inputs"] == [
        {"kind": "params", "name": "train.lr", "a": "0.003", "b": "0.002"},
        {"kind": "data", "name": "data/splits", "a": "old".ljust(64, "0"), "b": "new".ljust(64, "0")},
        {"kind": "code", "name": "src/codex_ml/core/gone.py", "a": "2" * 32},
        {"kind": "code", "name": "src/codex_ml/core/io.py", "a": "1" * 32, "b": "3" * 32},
        {"kind": "environment", "name": "torch", "a": "2.2", "b": "2.1"},
    ]
    text = run("old", "new")
    assert re.search(r"params that differ\n +A +B\n  train.lr  0.003  0.002\n", text)
    assert re.search(r"  src/codex_ml/core/gone.py  2{12}  none\n", text)


def test_a_folder_without_a_record_says_that_its_inputs_are_unknown(folders):
    assert "note: old has no lineage.json, so what it was made from is not compared" in run("old", "new")


BAD = {
    "one result": (["old"], "only old is named; name two results or more to compare"),
    "nothing of that name": (["old", "nowhere"], "nowhere is not a folder, and there is no repository here"),
    "an empty name": (["old", ""], "the name of a result is empty"),
    "a file": (["old", "file"], "file is a file; name a result folder"),
    "a folder without a result": (["old", "empty"], "empty has no details.json, so it is not a result folder"),
    "half a folder": (["old", "half"], "half/results/documents.parquet is missing, so the result is not whole"),
    "a model": (["old", "model"], "model is a model, not a result; name documents with --data to evaluate it on them"),
    "a model of one file": (["old", "m.gguf"], "m.gguf is a model, not a result; "),
    "other test documents": (["old", "other"], "old and other are results on different items of `documents`: 30 only in"),
    "no common item": (["old", "other", "--common"], "they share no item"),
    "a page that is a folder": (["old", "new", "--html", "empty"], "--html empty is a folder; name a file"),
    "a page in the place of a pipe": (["old", "new", "--html", "pipe/details.json"], "pipe/details.json is not a regular file"),
    "a name with escapes": (["old", "\x1b[31mred"], "\\x1b[31mred is not a folder"),
    "a name like an option of Git": (["--", "old", "--output=x"], "--output=x is not a folder"),
    "details that are no JSON": (["old", "broken"], "broken/details.json is not valid JSON"),
    "details that are a pipe": (["old", "pipe"], "pipe/details.json is not a regular file"),
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize("place", ["/proc/page.html", "/proc/self/fd/page.html", "/dev/full/page.html"])
def test_a_page_where_no_file_can_be_is_one_line(folders, place):
    assert place.removesuffix("/page.html") in run("old", "new", "--html", place, code=1)


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_leaves_nothing(folders, written_result, tree, case):
    Path("file").write_text("x")
    Path("m.gguf").write_text("x")
    for name in ("empty", "model", "broken", "pipe"):
        Path(name).mkdir()
    Path("model/config.json").write_text("{}")
    Path("broken/details.json").write_text("{")
    os.mkfifo("pipe/details.json")
    shutil.copytree("new", "half", ignore=shutil.ignore_patterns("*.parquet"))
    other = written_result(BETTER)
    other.texts["item"] = [f"other {name}" for name in other.texts["item"]]
    other.write(folders / "other")
    arguments, message = BAD[case]
    before = sorted(path.name for path in folders.rglob("*"))
    assert message in run(*arguments, "--json", code=2) if "--" not in arguments else run(*arguments, code=2)
    assert sorted(path.name for path in folders.rglob("*")) == before


def test_a_page_is_not_left_half_written(folders):
    Path("page.html").write_text("before")
    run("old", "nowhere", "--html", "page.html", code=2)
    assert Path("page.html").read_text() == "before"
    assert sorted(p.name for p in folders.iterdir()) == ["new", "old", "page.html"]


class Elements(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(folders, written_result):
    """The page of two results whose texts are `text`."""

    def page(text: str, html: str) -> Elements:
        for number, nll in enumerate((NLL, BETTER)):
            one = written_result(nll)
            for column in ("item", "source", "path"):
                one.texts[column] = [f"{text} {n}" for n in range(len(nll))]
            one.listed = {"settings": {text: number}}
            one.write(folders / f"{html}{number} {text[:3]}".replace("/", "_"))
        names = sorted(path.name for path in folders.iterdir() if path.name.startswith(html))
        run(*names, "--html", f"{html}.html")
        return Elements(Path(f"{html}.html").read_text(encoding="utf-8"))

    return page


def test_the_page_has_no_element_of_a_hostile_text_and_loads_nothing(page):
    harmless, hostile = page("plain", "a"), page(HOSTILE, "b")
    assert hostile.tags == harmless.tags
    assert [a[:2] for a in hostile.attributes] == [a[:2] for a in harmless.attributes]
    assert "script" not in hostile.tags
    assert "\\x1b[31m</td><script>alert(1)</script>\\u202e{{ 7*7 }}" in hostile.text
    policy = next(
        value for tag, name, value in hostile.attributes if (tag, name) == ("meta", "content") and "src" in value
    )
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    links = {value for tag, name, value in hostile.attributes if name in ("href", "src")}
    assert links
    assert all(link.startswith("./") for link in links)


def test_the_links_of_the_page_lead_to_the_rows(folders):
    Path("pages").mkdir()
    run("old", "new", "--html", "pages/page.html")
    found = Elements(Path("pages/page.html").read_text(encoding="utf-8"))
    links = {value for _, name, value in found.attributes if name == "href"}
    assert links == {"./../old/results/documents.ndjson", "./../new/results/documents.ndjson"}
    assert all((folders / "pages" / link).is_file() for link in links)
    assert "A: results/documents.ndjson line " in found.text


def test_the_text_shows_escapes_of_hostile_names(page, folders):
    page(HOSTILE, "b")
    names = sorted(path.name for path in folders.iterdir() if path.is_dir() and path.name.startswith("b"))
    text = run(*names)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31m</td><script>" in text


@pytest.fixture
def repository(tmp_path, monkeypatch, written_result, chain):
    """A pipeline that has run in Git, with the stage `evaluate` after `train`; `evaluated(nll, lr)` runs it again."""
    document = json.loads(Path("dvc.yaml").read_bytes())
    outs = ["reports/evaluate/details.json", "reports/evaluate/results", "reports/evaluate/lineage.json"]
    document["stages"]["evaluate"] = {
        "cmd": "python -P stages/evaluate.py", "desc": "e", "params": ["seed"], "deps": ["models/model"], "outs": outs,
    }  # fmt: skip
    chain.write("dvc.yaml", json.dumps(document).encode())
    chain.write(".gitignore", b"/.dvc/cache\n/reports\n/data\n/models\n")
    git("init", "-q", "-b", "main")

    def evaluated(nll: list[float], lr: float, message: str) -> str:
        shutil.rmtree("reports/evaluate", ignore_errors=True)
        written_result(nll).write(Path("reports/evaluate"))
        chain.write("params.yaml", f"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: {lr}\n".encode())
        chain.write("models/model/weights", str(lr).encode())
        chain.lock()
        for name in (*outs, "reports/train/lineage.json", "reports/split/lineage.json", "reports/fetch/lineage.json"):
            in_cache(chain, name)
        git("add", ".")
        git("commit", "-qm", message)
        return git("rev-parse", "HEAD")

    return evaluated


def in_cache(chain, name: str) -> None:
    """Put a file, or a folder with its list, where DVC keeps it."""
    path, digest = Path(name), hash_path(Path(name)).md5
    data = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        inner = sorted(file for file in path.rglob("*") if file.is_file())
        for file in inner:
            in_cache(chain, str(file))
        listing = [{"md5": hash_path(file).md5, "relpath": file.relative_to(path).as_posix()} for file in inner]
        data = json.dumps(listing, sort_keys=True).encode()
    chain.write(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}", data)


def test_a_revision_is_compared_with_the_workspace(repository):
    first = repository(NLL, 0.003, "one")
    repository(BETTER, 0.002, "two")
    (comparison,) = json.loads(run("HEAD~1", "workspace", "--json"))["comparisons"]
    assert comparison["a"] == {"name": "HEAD~1", "kind": "revision", "commit": first, "model": digest(NLL)}
    assert comparison["b"]["kind"] == "workspace"
    assert comparison["metrics"][0]["verdict"] == "better"
    assert comparison["notes"] == []
    inputs = {(d["kind"], d["name"]): (d.get("a"), d.get("b")) for d in comparison["inputs"]}
    assert inputs["params", "train.lr"] == ("0.003", "0.002")
    assert inputs.keys() == {("params", "train.lr"), ("data", "models/model")}


def test_revisions_are_read_without_a_checkout_and_from_any_folder(repository, monkeypatch):
    repository(NLL, 0.003, "one")
    git("tag", "first")
    repository(BETTER, 0.002, "two")
    shutil.rmtree("reports")
    monkeypatch.chdir("stages")
    written = Path.cwd() / "page.html"  # the path of the user; the command works in the top folder
    text = run("first", "main", "--html", "page.html")
    assert "better" in text
    page = Elements(written.read_text())
    assert "A: results/documents.ndjson line" in page.text
    assert not [value for tag, name, value in page.attributes if name == "href"]
    assert not Path("reports").exists()


def test_an_experiment_is_found_by_its_name(repository):
    first = repository(NLL, 0.003, "one")
    commit = repository(BETTER, 0.002, "two")
    git("update-ref", f"refs/exps/{first[:2]}/{first[2:]}/fast-lr", commit)
    git("update-ref", "refs/exps/exec/EXEC_BASELINE", first)
    git("reset", "-q", "--hard", first)
    (comparison,) = json.loads(run("main", "fast-lr", "--json"))["comparisons"]
    assert comparison["b"] == {"name": "fast-lr", "kind": "experiment", "commit": commit, "model": digest(BETTER)}
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/fast-lr", first)
    said = run("main", "fast-lr", code=2)
    assert f"fast-lr stands for the experiment {first[:12]} and the experiment {commit[:12]}" in said.replace(
        f"the experiment {commit[:12]} and the experiment {first[:12]}",
        f"the experiment {first[:12]} and the experiment {commit[:12]}",
    )


def test_a_name_of_a_folder_and_of_a_revision_is_refused(repository, written_result):
    repository(NLL, 0.003, "one")
    written_result(BETTER).write(Path("main"))
    assert "main stands for the folder ./main and the revision " in run("HEAD", "main", code=2)
    assert "better" in run("HEAD", "./main")


def test_objects_that_are_not_in_the_cache_are_named_with_the_command_that_fetches_them(repository):
    commit = repository(NLL, 0.003, "one")
    digest = hash_path(Path("reports/evaluate/details.json")).md5
    Path(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}").unlink()
    assert run("main", "workspace", code=2) == (
        "error: reports/evaluate/details.json of main is not in DVC's cache; `dvc fetch --all-commits "
        "reports/evaluate/details.json` brings it there\n"
    )
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/other", commit)
    assert "details.json of other is not in DVC's cache; `dvc exp pull REMOTE other` brings it there" in run(
        "workspace", "other", code=2
    )


def test_a_damaged_object_of_the_cache_counts_as_missing(repository):
    repository(NLL, 0.003, "one")
    digest = hash_path(Path("reports/evaluate/results/documents.parquet")).md5
    Path(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}").write_bytes(b"damaged")
    assert "reports/evaluate/results/documents.parquet of main is not in DVC's cache" in run(
        "main", "workspace", code=2
    )


def test_a_revision_without_a_result_says_so(repository):
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    git("tag", "empty")
    repository(NLL, 0.003, "one")
    assert "empty has no dvc.lock, so nothing was evaluated there" in run("workspace", "empty", code=2)
    lock = json.loads(Path("dvc.lock").read_bytes())
    del lock["stages"]["evaluate"]
    Path("dvc.lock").write_text(json.dumps(lock))
    git("commit", "-qam", "two")
    assert "dvc.lock of HEAD has no stage evaluate" in run("main~1", "HEAD", code=2)


def test_a_workspace_without_a_result_says_so(repository):
    repository(NLL, 0.003, "one")
    shutil.rmtree("reports/evaluate")
    assert "reports/evaluate has no details.json, so it is not a whole result" in run("main", "workspace", code=2)


def test_a_lock_of_two_runs_is_noted_and_only_the_inputs_of_evaluate_are_compared(repository, chain):
    repository(NLL, 0.003, "one")
    chain.edit_lock(lambda stages: stages["split"].update(cmd="python other.py"))
    git("commit", "-qam", "mixed")
    (comparison,) = json.loads(run("HEAD~1", "HEAD", "--json"))["comparisons"]
    assert comparison["notes"] == [
        f"both are results of one model (SHA-256 {digest(NLL)[:12]})",
        "of HEAD, only the inputs of evaluate are compared: dvc.lock holds stages of several runs: split ran with other "
        "deps, outs or cmd than dvc.yaml has. Run `dvc repro`, or name a commit of one run with --rev",
    ]
    assert comparison["inputs"] == []


def test_a_message_about_a_file_of_a_revision_names_the_revision(repository, written_result):
    one = written_result(NLL)
    repository(NLL, 0.003, "one")
    del one
    details = Path("reports/evaluate/details.json")
    found = json.loads(details.read_text())
    found["tasks"]["documents"]["items"] = 31
    details.write_text(json.dumps(found))
    from codex_ml.core.pipeline import load_lock

    lock = json.loads(Path("dvc.lock").read_bytes())
    for out in lock["stages"]["evaluate"]["outs"]:
        out["md5"] = hash_path(Path(out["path"])).md5
    Path("dvc.lock").write_text(json.dumps(lock))
    assert load_lock()
    digest = hash_path(details).md5
    Path(f".dvc/cache/files/md5/{digest[:2]}").mkdir(exist_ok=True)
    Path(f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}").write_bytes(details.read_bytes())
    git("commit", "-qam", "two")
    said = run("HEAD~1", "HEAD", code=2)
    assert (
        "HEAD:reports/evaluate/results/documents.parquet has 30 rows of documents, but details.json beside it" in said
    )
    assert "codex-ml-compare-" not in said


def dvc(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_experiment_that_dvc_has_run_is_compared_with_its_baseline(tmp_path, monkeypatch, written_result):
    """Real Git and DVC: an experiment's files are in DVC's cache alone, after its run was undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for number, nll in enumerate((NLL, BETTER)):
        written_result(nll).write(tmp_path / "made" / str(number))
    Path("src/codex_ml").mkdir(parents=True)
    Path("params.yaml").write_text("seed: 0\n")
    names = ["details.json", "results"]
    stage = {
        "cmd": "mkdir -p reports/evaluate && cp -r made/${seed}/. reports/evaluate",
        "params": ["seed"],
        "outs": [f"reports/evaluate/{name}" for name in names],
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))
    Path(".gitignore").write_text("/reports/evaluate/\n")
    git("init", "-q", "-b", "main")
    for key, value in (("user.name", "T"), ("user.email", "t@example.invalid"), ("commit.gpgsign", "false")):
        git("config", key, value)
    dvc("init", "-q")
    dvc("repro", "-q")
    git("add", ".")
    git("commit", "-qm", "baseline")
    dvc("exp", "run", "-q", "-n", "lower", "-S", "seed=1")
    git("checkout", "-q", ".")
    shutil.rmtree("reports/evaluate")
    (comparison,) = json.loads(run("main", "lower", "--json"))["comparisons"]
    assert (comparison["a"]["kind"], comparison["b"]["kind"]) == ("revision", "experiment")
    assert comparison["b"]["commit"] == git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/lower")
    assert comparison["metrics"][0]["verdict"] == "better"
    assert not Path("reports/evaluate").exists()


def test_names_with_line_breaks_make_no_line_of_their_own(folders, written_result):
    for number, name in enumerate(("one", "two")):
        one = written_result(NLL if number else BETTER)
        one.texts["item"] = [f"line\nbits_per_byte better {n}" for n in range(30 - number)] + ["x"] * number
        one.listed = {"settings": {"a\nb": number}}
        one.write(folders / name)
    assert "29 with" not in run("one", "two", code=2)
    text = run("one", "two", "--common")
    assert "setting a\\nb: A 0, B 1" in text
    assert "line\\nbits_per_byte better" in text
    assert not [line for line in text.splitlines() if line.startswith("bits_per_byte better")]


def test_many_results_are_told_apart_in_messages(folders):
    shutil.copytree("new", "half", ignore=shutil.ignore_patterns("*.parquet"))
    assert "error: half/results/documents.parquet is missing" in run("old", *["new"] * 10, "half", code=2)
