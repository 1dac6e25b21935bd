"""`codex-ml evaluate`: any model on any documents; its numbers, its result folder, and bad inputs."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codex_ml.cli import measure_model
from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.measure_model import go_offline
from codex_ml.cli.model_and_data import documents_file, is_split, kind_of
from codex_ml.core.errors import UserError
from codex_ml.core.network_guard import refuse_network
from codex_ml.documents.document import Document, read_documents, write_documents
from codex_ml.evaluate.result_folder import result_at
from codex_ml.inference.evaluate_files import PLOT_FILES, Evaluation

from ..json_schema_checker import problems

WINDOW = 32
OWN = "models/model"
SPLIT = "data/split.parquet"
FAST = ("-S", "completions.documents=0", "-S", "bootstrap=100")
TEXTS = [f"def f{number}(x):\n    return x + {number}\n" for number in range(24)]
TASK = {
    "task_id": "t/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `trained`, as the stage train writes it, and `foreign`, the same model as others give it.

    All weights of the output are zero, so every token has the same probability.
    """
    from codex_ml.modeling.train_files import Training, UsedHardware, UsedOptimizer
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.config import Model
    from codex_ml.train.model.adapters import save_model
    from codex_ml.train.model.build import build_model
    from codex_ml.train.model.describe import describe_model

    root = tmp_path_factory.mktemp("models")
    foreign, trained = root / "foreign", root / "trained"
    foreign.mkdir()
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="byte_bpe", vocab_size=300), foreign)
    tokenizer = load_tokenizer(foreign)
    shape = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=WINDOW)
    ids = {"vocab_size": tokenizer.vocab_size, "end": tokenizer.end, "pad": tokenizer.pad}
    model = build_model(shape, **ids, seed=1, attention="eager")
    model.get_output_embeddings().weight.data.zero_()
    save_model(model, foreign)
    shutil.copytree(foreign, trained)
    Training(
        seed=0, rows_a_step=0, seq_len=WINDOW, global_step=0, stopped_early=False, skipped_steps=0, micro_batch_size=0,
        processes=[], continued=[], model=describe_model(model, shape), tokenizer="byte-level BPE",
        optimizer=UsedOptimizer(name="adamw", lr=0.0, embedding_lr=None),
        hardware=UsedHardware(device="cpu", precision="fp32", compile=False, threads=1),
    ).write(trained / "training.json")  # fmt: skip
    return root


@pytest.fixture
def here(workspace: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is a copy of the repository with links to the models, documents and a benchmark."""
    shutil.copytree(made / "trained", workspace / OWN, dirs_exist_ok=True)
    shutil.copytree(made / "foreign", workspace / "foreign")
    write_lines("held.jsonl", [{"text": text, "id": f"d{number}"} for number, text in enumerate(TEXTS)])
    write_lines("tasks.jsonl", [TASK])
    write_lines("lines.jsonl", [[1]])
    fields = {"source": "s", "path": "", "group": "", "licence": "MIT", "language": "text"}
    write_documents(Path(SPLIT), [Document(**fields, id="a", text="x = 1\n")])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # so that it is set back
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    monkeypatch.setattr("codex_ml.core.record.cpu_threads", lambda _: 1)  # two wait for each other at this size
    go_offline.cache_clear()
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    hooks.clear()
    yield workspace
    go_offline.cache_clear()


hooks: list[Any] = []


def write_lines(name: str, rows: list[Any]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*arguments: object, code: int = 0) -> str:
    """What the command prints: on stdout if it succeeds, else its one line of error."""
    done = CliRunner().invoke(whole_app(), ["evaluate", *map(str, arguments)])
    assert done.exit_code == code, done.output
    if code:
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, "an error is one line"
    return done.stderr if code else done.stdout


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary_in_a_whole_result_folder(here: Path) -> None:
    text = run("--model", OWN, "--data", "held.jsonl", "--out", "result", *FAST)
    found = Evaluation.of_folder(Path("result"))
    vocabulary = json.loads(Path(f"{OWN}/config.json").read_text())["vocab_size"]
    values = found.documents.metrics
    size, tokens = (found.documents.counts[name] for name in ("bytes", "tokens"))
    assert size == sum(map(len, TEXTS))
    assert values["perplexity"].value == pytest.approx(vocabulary, rel=1e-5)
    assert values["bits_per_byte"].value == pytest.approx(tokens * math.log2(vocabulary) / size, rel=1e-5)
    assert values["bits_per_byte"].low is not None
    assert values["ngram_bits_per_byte"].why == "there is no n-gram model (no train documents were given)"
    assert found.documents.settings["length"] == WINDOW
    assert {file.relative_to("result").as_posix() for file in Path("result").rglob("*") if file.is_file()} == {
        *("details.json", "metrics.json", *(f"plots/{name}" for name in PLOT_FILES)),
        *(f"results/{name}" for name in ("documents.parquet", "documents.ndjson", "groups.csv", "groups.parquet")),
    }
    assert len(result_at("result", Path("result")).table("documents").rows) == len(TEXTS), "it can be compared"
    assert text.splitlines()[0] == "documents: 24 items, 24 units"
    assert hooks == [refuse_network]


def test_the_same_weights_from_elsewhere_give_the_same_numbers_and_programs_run_too(here: Path) -> None:
    write_lines("samples.jsonl", [{"task_id": "t/0", "completion": "    return 1\n"}])
    options = ("--data", "held.jsonl", "--train", "held.jsonl", "--benchmark", "tasks.jsonl", "--json")
    short = ("-S", "completions.documents=3", "-S", "completions.max_tokens=4", "-S", "bootstrap=100")
    same = (*options, *short, "--samples", "samples.jsonl", "--window", WINDOW)
    trained, foreign = (json.loads(run("--model", name, *same)) for name in (OWN, "foreign"))
    assert problems(trained, output_schema("evaluate")) == []
    assert trained["model"] != foreign["model"]
    assert trained["tasks"] == foreign["tasks"]
    assert set(trained["tasks"]) == {"documents", "completions", "code/tasks"}
    assert trained["tasks"]["code/tasks"]["metrics"]["pass_at_1"]["value"] == 1.0
    metrics = {name: value for task in trained["tasks"].values() for name, value in task["metrics"].items()}
    methods = {name: value["method"] for name, value in metrics.items() if value.get("low") is not None}
    assert set(methods.values()) == {"bootstrap", "exact"}
    assert methods["pass_at_1"] == "exact"
    assert all(value.get("method") is None for value in metrics.values() if value.get("low") is None)
    assert trained["tasks"]["documents"]["metrics"]["ngram_bits_per_byte"]["value"] < 1.0, "it has seen the documents"


def test_refused_records_are_counted_and_ids_are_redacted(here: Path) -> None:
    secret = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # a rule of tests/project redacts it pragma: allowlist secret
    write_lines("held.jsonl", [{"text": "x = 1\n", "id": secret}, {"text": ""}, {"text": 5}])
    done = CliRunner().invoke(whole_app(), ["evaluate", "--model", OWN, "--data", "held.jsonl", "--out", "new", *FAST])
    assert done.exit_code == 0, done.output
    assert "note: --data: 2 of 3 records were refused: " in done.stderr
    rows = Path("new/results/documents.ndjson").read_text()
    assert secret not in rows
    assert json.loads(rows)["item"].startswith("<SECRET:")
    assert str(here) not in rows


def test_names_of_folders_and_files_are_redacted(here: Path) -> None:
    secret = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # pragma: allowlist secret
    Path(secret, secret).mkdir(parents=True)
    Path(secret, secret, f"{secret}.py").write_text("x = 1\n")
    arguments = ["evaluate", "--model", OWN, "--data", secret, "--kind", "files", "--out", "new", *FAST]
    done = CliRunner().invoke(whole_app(), arguments)
    assert done.exit_code == 0, done.output
    assert secret not in done.output
    (row,) = map(json.loads, Path("new/results/documents.ndjson").read_text().splitlines())
    assert (row["source"][:8], row["path"].count("<SECRET:")) == ("<SECRET:", 2)
    written = [path for path in Path("new").rglob("*") if path.is_file()]
    assert [path.name for path in written if secret.encode() in path.read_bytes()] == []


def test_a_result_is_replaced_only_if_that_is_asked_for(here: Path) -> None:
    Path("result").mkdir()
    Path("result/details.json").write_text("{}")
    arguments = ("--model", OWN, "--data", "held.jsonl", "--out", "result", *FAST)
    assert "--out result holds a result; name a new folder, or add --force to replace it" in run(*arguments, code=2)
    run(*arguments, "--force")
    assert Evaluation.of_folder(Path("result")).documents.items == len(TEXTS)


BAD: list[tuple[str, list[str], str]] = [
    ("no such model", ["--model", "nowhere"], "nowhere does not exist; "),
    ("a folder that is no model", ["--model", "data"], "data has neither model.safetensors nor model.safetensors.index.json"),
    ("a file that is no GGUF", ["--model", "held.jsonl"], "held.jsonl "),
    ("no such data", ["--data", "nowhere.jsonl"], "nowhere.jsonl does not exist; name a file or a folder of documents"),
    ("a name without a kind", ["--data", "src"], "src: the name does not say what it holds; add --kind"),
    ("an unknown kind", ["--kind", "poem"], "--kind: kind"),
    ("a kind that is for folders", ["--kind", "git"], "error: --data: held.jsonl is not a folder"),
    ("a kind that a split contradicts", ["--data", SPLIT, "--kind", "csv"], f"--kind csv: {SPLIT} is a split, which is a"),
    ("no such train documents", ["--train", "gone.jsonl"], "gone.jsonl does not exist"),
    ("an unknown key", ["-S", "strid=1"], "-S strid=1: expected KEY=VALUE with a key of evaluate"),
    ("a key without a value", ["-S", "stride"], "-S stride: expected KEY=VALUE"),
    ("a value of another type", ["-S", "stride=many"], "-S: stride"),
    ("an empty stop string", ["-S", "completions.stop=['']"], "an empty string is part of every text"),
    ("a k above the samples", ["-S", "code.k=[10]"], "k 10 needs at least as many samples, found 1"),
    ("benchmarks as a key", ["-S", "benchmarks=[a]"], "-S benchmarks=[a]: use --benchmark FILE"),
    ("an unknown metric", ["-S", "metrics=[bleau]"], "-S metrics: there is no metric 'bleau'; did you mean bleu"),
    ("a stride longer than the window", ["-S", "stride=33"], "-S stride 33 is not within a window of 32 tokens"),
    ("a window of too many positions", ["--window", "33"], "--window 33 is longer than the model's max_position_emb"),
    ("an output that is a file", ["--out", "held.jsonl"], "--out held.jsonl exists and is not a result folder"),
    ("an output that holds other things", ["--out", "src"], "--out src exists and is not a result folder"),
    ("an output below a file", ["--out", "held.jsonl/new"], "--out held.jsonl/new cannot be made (Not a directory); name"),
    ("an output that no file system takes", ["--out", "/proc/new/x"], "--out /proc/new/x cannot be made (No such file or"),
    ("an output with a name that is too long", ["--out", "x" * 300], "cannot be made (File name too long); name a folder"),
    ("force without an output", ["--force"], "--force replaces the result in the folder of --out"),
    ("samples without a benchmark", ["--samples", "held.jsonl"], "held.jsonl needs one benchmark, and --benchmark names 0"),
    ("a benchmark that is missing", ["--benchmark", "gone.jsonl"], "gone.jsonl is not a file; --benchmark takes a file in"),
    ("a benchmark of another format", ["--benchmark", "lines.jsonl"], "lines.jsonl:1: not a JSON object (a JSON list); --ben"),
    ("two benchmarks of one name", ["--benchmark", "a/t.jsonl", "--benchmark", "b/t.jsonl"], "two files have the name t"),
    ("a baseline elsewhere", ["-S", "compare_to=result"], "only folders below data/baselines"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_mistake_is_one_line_and_nothing_is_written(here: Path, arguments: list[str], said: str) -> None:
    before = {"--model": OWN, "--data": "held.jsonl", "--out": "result"}
    given = before | dict(zip(arguments[::2], arguments[1::2], strict=False)) if arguments[0] in before else before
    if arguments == ["--force"]:
        del given["--out"]
    rest = [] if arguments[0] in before else arguments
    error = run(*(word for pair in given.items() for word in pair), *FAST, *rest, code=2)
    assert said in error
    assert not Path("result").exists()
    assert not list(here.glob(".result*"))


def test_a_kind_is_for_the_input_that_is_not_a_split_and_may_say_what_a_split_is(here: Path) -> None:
    run("--model", OWN, "--data", SPLIT, "--kind", "parquet", *FAST)
    Path("text").mkdir()
    Path("text/a.py").write_text("x = 2\n")
    run("--model", OWN, "--data", "text", "--kind", "files", "--train", SPLIT, *FAST)
    both = ("--model", OWN, "--data", SPLIT, "--train", SPLIT, *FAST)
    assert f"--kind files: {SPLIT} is a split" in run(*both, "--kind", "files", code=2)


def test_a_full_disk_is_not_a_mistake_of_the_user(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "full", "new")

    monkeypatch.setattr(Path, "mkdir", full)
    assert "the disk is full" in run("--model", OWN, "--data", "held.jsonl", "--out", "new/x", *FAST, code=1)


def refused(said: str, *arguments: object) -> None:
    """Evaluate `held.jsonl` with other arguments and expect this message."""
    given: dict[object, object] = {"--model": OWN, "--data": "held.jsonl"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    error = run(*(word for pair in given.items() for word in pair), "--out", "result", *FAST, code=2)
    assert said in error
    assert not Path("result").exists()


def test_documents_that_hold_nothing_are_refused(here: Path) -> None:
    Path("held.jsonl").write_bytes(b"")
    refused("held.jsonl has no documents (1 x has no records); is jsonl its kind?")
    write_lines("held.jsonl", [{"text": ""}])
    refused("held.jsonl has no documents (1 x empty); is jsonl its kind?")
    write_documents(Path("split.parquet"), [])
    refused("split.parquet has no documents that can be scored", "--data", "split.parquet")
    fields = {"source": "s", "path": "", "group": "", "licence": "MIT", "language": "text"}
    write_documents(Path("split.parquet"), [Document(**fields, id="empty", text="")])
    refused("split.parquet has no documents that can be scored", "--data", "split.parquet")


def test_damaged_documents_are_refused(here: Path) -> None:
    Path("held.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    refused("held.jsonl.gz has no documents", "--data", "held.jsonl.gz")
    Path("split.parquet").write_bytes(b"PAR1 damaged PAR1")
    refused("split.parquet is damaged", "--data", "split.parquet")


def test_a_damaged_or_incomplete_model_is_refused(here: Path) -> None:
    weights = Path(f"{OWN}/model.safetensors").read_bytes()
    for folder in (OWN, "foreign"):
        Path(folder, "model.safetensors").write_bytes(weights[:-100])
        refused(f"{folder}", "--model", folder)
        Path(folder, "model.safetensors").write_bytes(weights)
        Path(folder, "tokenizer.json").unlink()
        refused("tokenizer.json", "--model", folder)


def test_gguf_without_its_package_names_the_command_that_installs_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("codex_ml.core.gguf_file.find_spec", lambda name: None)
    refused("model.gguf needs the package gguf; run `", "--model", "model.gguf")


def test_tasks_and_samples_with_mistakes_are_refused_before_the_model_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_model, "load_subject", None)
    write_lines("samples.jsonl", [{"task_id": "t/1", "completion": "x"}])
    both = ("--benchmark", "tasks.jsonl", "--samples", "samples.jsonl")
    refused("samples.jsonl:1: the benchmark has no task 't/1'", *both)
    write_lines("samples.jsonl", [{"completion": "x"}])
    refused("task_id is missing", *both)
    Path("samples.jsonl").write_bytes(b"")
    refused("samples.jsonl has no samples", *both)
    write_lines("tasks.jsonl", [TASK, TASK])
    refused("t/0", "--benchmark", "tasks.jsonl")


@pytest.mark.parametrize("number", [28, 13], ids=["a full disk", "no permission"])
def test_an_error_of_the_disk_is_one_line_and_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "of the disk", "result/details.json")

    monkeypatch.setattr(Evaluation, "write", fail)
    assert "result/details.json" in run("--model", OWN, "--data", "held.jsonl", "--out", "result", *FAST, code=1)
    assert not Path("result").exists()
    assert not list(here.glob(".result*"))


def test_outside_of_a_repository_there_is_no_policy_and_so_no_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "run this inside the repository" in run("--model", "m", "--data", "d", code=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON.gz", "jsonl"), ("a.csv.zst", "csv"), ("a.tsv", "tsv"), ("a.parquet", "parquet"),
        ("a.zip", "zip"), ("a.tar.xz", "tar"), ("a.tgz", "tar"),
    ],
)  # fmt: skip
def test_a_kind_is_guessed_from_a_name_that_says_it(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind


@pytest.mark.parametrize("name", ["a.txt", "a.whl", "a.json", "a", "a.gz", "jsonl"])
def test_other_names_need_a_kind(name: str) -> None:
    with pytest.raises(UserError, match="the name does not say what it holds; add --kind"):
        kind_of(Path(name))


def compare(*arguments: object, code: int = 0) -> str:
    """What `codex-ml compare` prints: on stdout if it succeeds, else its one line of error."""
    done = CliRunner().invoke(whole_app(), ["compare", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stderr if code else done.stdout


def test_models_are_compared_on_documents_with_each_other_and_with_a_result(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    run("--model", OWN, "--data", "held.jsonl", "--out", "result", *FAST)
    weights = load_file(f"{OWN}/model.safetensors")
    other = {name: value + torch.arange(value.numel()).reshape(value.shape) % 7 / 70 for name, value in weights.items()}
    save_file(other, f"{OWN}/model.safetensors", {"format": "pt"})
    monkeypatch.chdir("stages")  # paths are those of the user, who is in a folder of the repository
    (comparison,) = json.loads(
        compare("../result", f"../{OWN}", "--data", "../held.jsonl", *FAST, "--html", "../page.html", "--json")
    )["comparisons"]
    assert comparison["b"]["kind"] == "model" and comparison["b"]["name"] == f"../{OWN}"
    assert comparison["a"]["model"] != comparison["b"]["model"]
    assert comparison["tasks"][0]["items"] == len(TEXTS)
    (bits,) = [row for row in comparison["metrics"] if row["metric"] == "bits_per_byte"]
    vocabulary = json.loads((here / f"{OWN}/config.json").read_text())["vocab_size"]
    details = Evaluation.of_folder(here / "result").documents
    tokens, size = details.counts["tokens"], details.counts["bytes"]
    assert bits["a"] == pytest.approx(tokens * math.log2(vocabulary) / size, rel=1e-5)
    assert bits["difference"] == pytest.approx(bits["b"] - bits["a"], abs=1e-5) and bits["difference"] != 0
    assert "codex-ml-compare-" not in (here / "page.html").read_text()


def test_options_for_models_need_documents_and_documents_a_repository(here: Path) -> None:
    assert compare(OWN, OWN, "--window", 8, code=2) == (
        "error: --window is for models, which are evaluated on --data; name documents\n"
    )
    assert "held.jsonl has no documents" in compare(OWN, OWN, "--data", "held.jsonl", *FAST, "--kind", "csv", code=2)  # fmt: skip
    shutil.copytree(OWN, "../model")
    os.chdir("..")
    assert "run this inside the repository" in compare("model", "model", "--data", "x.jsonl", code=2)


def test_only_the_folder_that_train_writes_is_trusted_whatever_files_a_foreign_one_has(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OWN, "copy")
    Path("copy/helper.py").write_text("raise SystemExit\n")
    refused("copy/helper.py: .py files can run code when they are loaded", "--model", "copy")
    Path("copy/helper.py").unlink()
    (Path("copy") / "training.json").write_text("[]")
    refused("copy/training.json", "--model", "copy")


def test_only_the_columns_of_a_split_make_a_split(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = {"source": "s", "path": "", "group": "", "licence": "MIT", "language": "text"}
    file = tmp_path / "a.parquet"
    write_documents(file, [Document(**fields, id="a", text="a")])
    assert is_split(file)
    table = pq.read_table(file)
    pq.write_table(table.append_column("place", pa.array(["a.jsonl:1"], pa.large_string())), file)
    assert not is_split(file), "the corpus of ingest is not redacted"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "zip", "files", "git"])
def test_the_same_document_is_read_from_a_source_of_any_kind(tmp_path: Path, kind: str) -> None:
    import csv
    import subprocess
    import zipfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    from codex_ml.core.config import Runtime

    text = "def f():\n    return 'ä'\n"
    file = tmp_path / f"source.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps({"text": text}), encoding="utf-8")
    elif kind == "csv":
        with file.open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([["text"], [text]])
    elif kind == "parquet":
        pq.write_table(pa.table({"text": [text]}), file)
    elif kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.py", text)
    else:
        file.mkdir()
        (file / "a.py").write_text(text, encoding="utf-8")
    if kind == "git":
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
        for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", str(file), *command], check=True)
    (tmp_path / "scratch").mkdir()
    made, refused = documents_file(file, kind, tmp_path / "scratch", Runtime(workers=1), str)
    assert refused == ""
    (document,) = read_documents(made)
    assert document.content == text
    assert document.source.startswith(f"source.{kind}"), "an archive and a commit add their own names"
    assert str(tmp_path) not in repr(document), "no path of this machine"


@pytest.mark.parametrize(
    ("number", "code", "line"), [(15, 143, "terminated"), pytest.param(2, 130, "interrupted", marks=pytest.mark.slow)]
)
def test_a_signal_while_programs_run_leaves_no_folder_and_no_process(
    here: Path, tmp_path_factory: pytest.TempPathFactory, number: int, code: int, line: str
) -> None:
    import subprocess
    import time

    from codex_ml.sandbox.watch import tree

    room = tmp_path_factory.mktemp("room")
    write_lines("samples.jsonl", [{"task_id": "t/0", "completion": "    import time\n    time.sleep(600)\n"}])
    command = [sys.executable, "-m", "codex_ml", "evaluate", "--model", OWN, "--data", "held.jsonl", "--out", "result"]
    command += ["--benchmark", "tasks.jsonl", "--samples", "samples.jsonl", *FAST, "-S", "code.cpu_seconds=600"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(room)}
    ) as process:
        while len(family := tree(process.pid)) < 7:  # a supervisor, and the processes of two programs
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        assert list(room.iterdir())
        process.send_signal(number)
        said = process.stderr.read() if process.stderr else ""
    assert process.returncode == code
    assert said.splitlines()[-1] == f"error: {line}"
    assert list(room.iterdir()) == []
    assert not Path("result").exists()
    for _ in range(1000):
        family = [pid for pid in family if runs(pid)]
        if not family:
            break
        time.sleep(0.01)
    assert family == []


def runs(process: int) -> bool:
    """Whether a process is there and is more than an entry that its parent has not read yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
