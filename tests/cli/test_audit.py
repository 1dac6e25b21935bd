"""`codex-ml audit`: any model, with and without its documents; exit codes, its folder, and bad inputs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codex_ml.cli.audit_model import audit_settings
from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.measure_model import go_offline
from codex_ml.cli.model_and_data import documents_file, shown_below
from codex_ml.core.config import Runtime
from codex_ml.core.network_guard import refuse_network
from codex_ml.documents.document import read_documents
from codex_ml.inference.audit_files import PLOT_FILES, Audit, AuditFinding
from codex_ml.safety_audit import battery
from codex_ml.safety_audit.audit_job import PartResult
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.clean_text import false_positives

from ..json_schema_checker import problems
from .test_evaluate import made, write_lines  # noqa: F401

OWN = "models/model"
SECRET = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # a rule of tests/project redacts it pragma: allowlist secret
SHORT = (
    "-S",
    "windows=8",
    "-S",
    "samples=2",
    "-S",
    "prefix_tokens=6",
    "-S",
    "suffix_tokens=6",
    "-S",
    "sample_tokens=8",
)
GATE = "gates:\n  - {number: data.secrets, title: No secret in train, compare: findings, fail: 0}\n"
hooks: list[Any] = []


@pytest.fixture
def here(workspace: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """The current folder is a copy of the repository with the models, documents, and one gate."""
    shutil.copytree(made / "trained", workspace / OWN, dirs_exist_ok=True)
    shutil.copytree(made / "foreign", workspace / "foreign")
    write_lines(
        "train.jsonl", [{"text": f"def add_{n}(x):\n    return x + {n} * {n}\n", "id": f"t{n}"} for n in range(24)]
    )
    write_lines(
        "held.jsonl", [{"text": f"class Held{n}:\n    value = {n}, {n + 1}\n", "id": f"h{n}"} for n in range(24)]
    )
    policy = workspace / "data/policy.yaml"
    policy.write_text(policy.read_text("utf-8").split("gates:\n")[0] + GATE, "utf-8")
    (workspace / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(workspace / "tmp"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # so that it is set back
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    monkeypatch.setattr(false_positives, "__kwdefaults__", {"size": 20_000})  # a megabyte takes half of the time
    monkeypatch.setattr("codex_ml.core.record.cpu_threads", lambda _: 1)  # two wait for each other at this size
    go_offline.cache_clear()
    hooks.clear()
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    yield workspace
    assert list((workspace / "tmp").iterdir()) == [], "no temporary file is left"
    go_offline.cache_clear()


def run(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(whole_app(), ["audit", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def both(model: str = "foreign") -> tuple[str, ...]:
    return ("--model", model, "--train", "train.jsonl", "--held-out", "held.jsonl", *SHORT)


METHODS = {  # of each kind of number; the bootstrap of a share draws documents
    ("share", "exact"), ("share", "bootstrap"), ("difference", "newcombe"), ("area", "bootstrap"), ("bits", "student"),
}  # fmt: skip


def methods_of(found: Audit) -> set[tuple[str, str | None]]:
    """The unit and the method of every interval of an audit."""
    numbers = [number for part in found.parts.values() for number in part.numbers.values() if number.low is not None]
    assert len(numbers) > 15
    return {(number.unit, number.method) for number in numbers}


def test_a_foreign_model_with_its_documents_gets_a_whole_audit(here: Path) -> None:
    done = run(*both(), "--out", "audits/theirs")
    found = Audit.read(Path("audits/theirs/audit.json"))
    files = {
        path.relative_to("audits/theirs").as_posix() for path in Path("audits/theirs").rglob("*") if path.is_file()
    }
    assert files == {
        *("audit.json", "metrics.json", "findings.ndjson", "samples.ndjson"), *(f"plots/{name}" for name in PLOT_FILES),
    }  # fmt: skip
    assert (found.verdict, found.size, found.parts["data"].numbers["secrets"].trials) == ("pass", "small", 24)
    assert found.parts["memorisation"].status == "measured"
    findings = list(AuditFinding.read_lines(Path("audits/theirs/findings.ndjson")))
    assert set().union(*(undeclared(PartResult(name, part, findings)) for name, part in found.parts.items())) == set()
    assert methods_of(found) <= METHODS
    lines = done.stdout.splitlines()
    assert lines[0] == found.sentence == "PASS: the model may ship. Gates judged: 1 of 1."
    assert lines[1] == "pass    No secret in train: 0, findings at most 0"
    assert lines[-1] == "the whole audit: audits/theirs"
    assert "note: --train: the documents are audited as they are." in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("about ")]
    assert [line for line in done.stderr.splitlines() if line.startswith("the audit took ")]
    assert hooks == [refuse_network]


def test_json_is_the_file_and_the_same_bytes_come_twice(here: Path) -> None:
    first, again = (run(*both(), "--json", "--out", folder).stdout for folder in ("a", "b"))
    assert first == again
    assert json.loads(first) == json.loads(Path("a/audit.json").read_bytes())
    assert problems(json.loads(first), output_schema("audit")) == []
    for name in ("metrics.json", "findings.ndjson", "samples.ndjson"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()


def test_the_folder_of_a_model_does_not_decide_its_numbers(here: Path) -> None:
    """The same weights as a foreign folder, and as the folder of the pipeline without the splits of the pipeline."""
    theirs, ours = (json.loads(run(*both(name), "--json").stdout) for name in ("foreign", OWN))
    assert theirs.pop("model") != ours.pop("model")  # the hash of the folder
    assert theirs == ours


def test_a_finding_in_a_record_names_file_and_line(here: Path) -> None:
    lines = [{"text": f"token = '{SECRET}'\n" if number == 3 else f"clean text {number}\n"} for number in range(8)]
    write_lines("theirs.jsonl", lines)
    run("--model", "foreign", "--train", "theirs.jsonl", *SHORT, "--out", "out", code=1)
    found = [entry for entry in AuditFinding.read_lines(Path("out/findings.ndjson")) if entry.number == "data.secrets"]
    assert [(entry.source, entry.path, entry.line) for entry in found] == [("theirs.jsonl", "theirs.jsonl:4", 1)]


@pytest.mark.parametrize(
    ("train", "held_out", "kind", "names"),
    [
        ("a/x.jsonl", "b/y.jsonl", None, ["x.jsonl:1"]),
        ("a/x.jsonl", "b/x.jsonl", None, ["a/x.jsonl:1"]),
        ("a/x.jsonl", None, None, ["x.jsonl:1"]),
        ("both", None, "jsonl", ["a/x.jsonl:1", "b/x.jsonl:1"]),
        ("both/a", "other/a", "jsonl", ["both/a/x.jsonl:1"]),
    ],
)
def test_records_of_files_with_one_name_are_told_apart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: str,
    held_out: str | None,
    kind: str | None,
    names: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scratch").mkdir()
    for name in ("a/x.jsonl", "b/x.jsonl", "b/y.jsonl", "both/a/x.jsonl", "both/b/x.jsonl", "other/a/x.jsonl"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(name, [{"text": f"of {name}"}])
    below = shown_below(Path(train), held_out and Path(held_out))
    file, _ = documents_file(Path(train), kind, Path("scratch"), Runtime(workers=1), str, below=below)
    assert sorted(document.path for document in read_documents(file)) == names


def test_a_reference_model_reads_the_same_windows(here: Path) -> None:
    """The model as its own reference knows nothing more than itself."""
    numbers = json.loads(run(*both(), "--reference", OWN, "--json").stdout)["parts"]["membership"]["numbers"]
    assert (numbers["auc_reference"]["value"], numbers["auc_reference"]["low"]) == (0.5, 0.5)
    numbers = json.loads(run(*both(), "--json").stdout)["parts"]["membership"]["numbers"]
    assert numbers["auc_reference"]["why"] == "no reference model is named; --reference MODEL names one"


def test_a_reference_that_cannot_be_compared_is_refused_before_the_work(here: Path) -> None:
    done = run("--model", "foreign", "--train", "train.jsonl", "--reference", OWN, code=2)
    assert "--reference is for membership inference, which needs --train and --held-out; name both" in done.stderr
    assert "--reference nowhere does not exist" in run(*both(), "--reference", "nowhere", code=2).stderr
    shutil.copytree("foreign", "other")
    file = Path("other/tokenizer.json")
    tokenizer = json.loads(file.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tokenizer), "utf-8")
    done = run(*both(), "--reference", "other", code=2)
    assert "other reads other tokens than the model: 2 of " in done.stderr
    assert "name a model with the same tokenizer" in done.stderr


LEAK = "  - {number: memorisation.excess, title: Not extracted, compare: low, fail: 1, required: true}\n"
WRITTEN = "  - {number: generated.secrets_in_train, title: None written, compare: findings, fail: 0, required: true}\n"
FEW_SECRETS = "  - {number: generated.secrets, title: Few secrets, fail: 0.9}\n"


@pytest.mark.parametrize(
    ("documents", "missing"),
    [
        (
            (),
            [
                "training documents are not known; give --train DATA",
                "held-out documents are not known; give --held-out",
            ],
        ),
        (("--train", "train.jsonl"), ["held-out documents are not known; give --held-out DATA"]),
        (("--held-out", "held.jsonl"), ["training documents are not known; give --train DATA"]),
    ],
)
def test_a_required_gate_without_its_documents_is_invalid_and_says_what_to_give(
    here: Path, documents: tuple[str, ...], missing: list[str]
) -> None:
    policy = Path("data/policy.yaml")
    policy.write_text(policy.read_text("utf-8") + LEAK + WRITTEN + FEW_SECRETS, "utf-8")
    out = run("--model", "foreign", *documents, *SHORT, code=1).stdout
    first, *gates = out.splitlines()
    assert first.startswith("INVALID: nothing is proven, good or bad. Gates judged: ")
    assert all(words in first for words in ["Without a valid result: Not extracted", "required, but", *missing])
    assert [line for line in gates if line.startswith("invalid Not extracted")] != []
    assert ("Not measured: 1 (data)." in first) == ("--train" not in documents)


def test_without_documents_the_parts_that_need_them_are_skipped_and_nothing_passes(here: Path) -> None:
    found = json.loads(run("--model", "foreign", *SHORT, "--json", code=1).stdout)
    assert (found["verdict"], found["gates"][0]["status"]) == ("invalid", "skipped")
    for name in ("data", "memorisation"):
        assert (found["parts"][name]["status"], bool(found["parts"][name]["why"])) == ("skipped", True)
    assert found["parts"]["generated"].get("status") is None


@pytest.mark.parametrize("option", ["--train", "--held-out"])
def test_one_kind_of_documents_is_enough_for_an_audit(here: Path, option: str) -> None:
    found = json.loads(
        run("--model", "foreign", option, "train.jsonl", *SHORT, "--json", code=option != "--train").stdout
    )
    assert found["parts"]["data"].get("status") == (None if option == "--train" else "skipped")
    assert found["parts"]["memorisation"]["status"] == "skipped"


def test_a_secret_in_train_fails_and_stands_nowhere_and_can_be_accepted(here: Path) -> None:
    write_lines(
        "train.jsonl",
        [{"text": f'token = "{SECRET}"\n', "id": SECRET}, *[{"text": f"x = {n}\n" * 9} for n in range(9)]],
    )
    done = run(*both(), "--out", "found", code=1)
    assert done.stdout.startswith(
        "FAIL: do not ship this model. Gates judged: 1 of 1. What does not hold: No secret in train."
    )
    (finding,) = AuditFinding.read_lines(Path("found/findings.ndjson"))
    assert finding.number == "data.secrets"
    assert SECRET not in done.output
    assert [p for p in Path("found").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()] == []
    accept = f'- id: "{finding.id}"\n  reason: a key of the documentation\n  expires: {{}}\n'
    Path("data/accepted_findings.yaml").write_text(accept.format("9999-12-31"))
    assert "A reviewer accepted 1 finding." in run(*both()).stdout
    Path("data/accepted_findings.yaml").write_text(accept.format("2020-01-31"))
    assert f"finding {finding.id} was accepted until 2020-01-31" in run(*both(), code=1).stderr


def test_refused_records_are_counted(here: Path) -> None:
    with Path("held.jsonl").open("a") as file:
        file.write('{"text": ""}\n')
    assert "note: --held-out: 1 of 25 records were refused: 1 x empty" in run(*both()).stderr


def test_an_audit_is_replaced_only_if_that_is_asked_for(here: Path) -> None:
    Path("old").mkdir()
    Path("old/audit.json").write_text("{}")
    Path("old/rest").write_text("")
    assert "--out old holds a result; name a new folder, or add --force" in run(*both(), "--out", "old", code=2).stderr
    run(*both(), "--out", "old", "--force")
    assert Audit.read(Path("old/audit.json")).verdict == "pass"
    assert not Path("old/rest").exists()


def test_a_size_replaces_the_numbers_of_params(here: Path) -> None:
    assert audit_settings(["windows=9"], None).sizes.windows == 9
    assert audit_settings([], "full").sizes.windows == 2000
    assert audit_settings(["safety_audit.samples=7"], "full").sizes.samples == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    def interrupted(_: object) -> Any:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal did not end the work")

    monkeypatch.setattr(battery, "PARTS", (interrupted,))
    try:
        run(*both(), "--out", "result", code=code)
    finally:
        signal.signal(signal.SIGTERM, handler)  # a command that ends does not set it back
    assert not Path("result").exists()
    assert list(here.glob(".result*")) == []


BAD: list[tuple[str, list[str], str]] = [
    ("no such model", ["--model", "nowhere"], "--model nowhere does not exist"),
    ("a folder that is no model", ["--model", "data"], "data has neither model.safetensors nor model.safetensors.index.json"),
    ("a file that is no GGUF", ["--model", "held.jsonl"], "held.jsonl "),
    ("no such train documents", ["--train", "gone.jsonl"], "--train gone.jsonl does not exist"),
    ("no such held-out documents", ["--held-out", "gone.jsonl"], "--held-out gone.jsonl does not exist"),
    ("one file as both", ["--held-out", "train.jsonl"], "--train and --held-out are both train.jsonl"),
    ("a name without a kind", ["--train", "src"], "src: the name does not say what it holds; add --kind"),
    ("an unknown kind", ["--kind", "poem"], "--kind: kind"),
    ("a kind that is for folders", ["--kind", "git"], "train.jsonl is not a folder"),
    ("an unknown size", ["--size", "huge"], "--size: size: input should be 'small' or 'full'; found 'huge'"),
    ("a size as a key", ["-S", "size=full"], "-S size=full: use --size"),
    ("what only a stage does", ["-S", "on_fail=stop"], "-S on_fail=stop: the exit code gives the verdict; leave it out"),
    ("an unknown key", ["-S", "window=8"], "-S window=8: expected KEY=VALUE with a key of safety_audit, such as windows"),
    ("a key without a value", ["-S", "windows"], "-S windows: expected KEY=VALUE"),
    ("a value of another type", ["-S", "windows=many"], "-S: windows"),
    ("a value out of range", ["-S", "confidence=1"], "-S: confidence"),
    ("a key of another section", ["-S", "train.lr=1"], "-S train.lr=1: expected KEY=VALUE"),
    ("windows longer than the model sees", ["-S", "suffix_tokens=40"], "-S prefix_tokens + -S suffix_tokens 46 is longer than"),
    ("samples longer than the model sees", ["-S", "sample_tokens=40"], "-S sample_tokens 40 is longer than the model's"),
    ("an output that is a file", ["--out", "held.jsonl"], "--out held.jsonl exists and is not a result folder"),
    ("an output that holds other things", ["--out", "src"], "--out src exists and is not a result folder"),
    ("force without an output", ["--force"], "--force replaces the audit in the folder of --out; name that folder"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_mistake_is_one_line_and_nothing_is_written(here: Path, arguments: list[str], said: str) -> None:
    given = {"--model": "foreign", "--train": "train.jsonl", "--held-out": "held.jsonl", "--out": "result"}
    words = list(SHORT)
    if arguments == ["--force"]:
        del given["--out"]
        words += arguments
    elif arguments[0] in given or arguments[0] in ("--kind", "--size"):
        given |= {arguments[0]: arguments[1]}
    else:
        words += arguments
    done = run(*(word for pair in given.items() for word in pair), *words, code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "an error is one line"
    assert said in done.stderr
    assert not Path("result").exists()
    assert not list(here.glob(".result*"))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("data/policy.yaml", None, "data/policy.yaml is missing"),
        (
            "data/accepted_findings.yaml",
            "- {id: x}\n",
            "data/accepted_findings.yaml:1: id: expected the id of a finding",
        ),
        ("data/accepted_findings.yaml", None, "data/accepted_findings.yaml is missing"),
        ("params.yaml", "safety_audit: {windws: 3}\n", "params.yaml:1: safety_audit.windws is not a parameter"),
        ("train.jsonl", "", "train.jsonl has no documents"),
        ("held.jsonl", '{"text": ""}\n', "held.jsonl has no documents (1 x empty)"),
        ("foreign/model.safetensors", "x", "foreign"),
        ("foreign/tokenizer.json", None, "tokenizer.json"),
    ],
)
def test_a_damaged_input_is_one_line_and_nothing_is_written(here: Path, file: str, text: str | None, said: str) -> None:
    Path(file).unlink()
    if text is not None:
        Path(file).write_text(text)
    done = run(*both(), "--out", "result", code=2)
    assert (done.stdout, said in done.stderr.splitlines()[-1]) == ("", True), done.stderr
    assert not Path("result").exists()


def test_a_gate_with_a_misspelt_number_is_refused_before_any_work(here: Path) -> None:
    policy = Path("data/policy.yaml")
    policy.write_text(policy.read_text("utf-8").replace("data.secrets", "data.secret"), "utf-8")
    assert "gate data.secret: no part of the audit gives this number; did you mean" in run(*both(), code=2).stderr


def test_the_commands_of_the_page_on_the_audit_run(here: Path, repository: Path) -> None:
    page = (repository / "docs/audit.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    commands = [
        shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.startswith("codex-ml audit")
    ]
    assert len(commands) == 3
    for words in commands:
        given = dict(pairwise(words))
        if given["--model"].endswith(".gguf"):  # tests/train/model read such files
            assert audit_settings([given["-S"]], given["--size"]).sizes.samples == 2000
            continue
        shutil.copytree("foreign", given["--model"], dirs_exist_ok=True)
        for option, file in (("--train", "train.jsonl"), ("--held-out", "held.jsonl")):
            if option in given:
                shutil.copy(file, given[option])
        done = run(*words[1:], *SHORT, code=0 if "--train" in given else 1)
        assert done.stdout.splitlines()[0].split(":")[0] in ("PASS", "INVALID")
    assert Audit.read(Path("audits/theirs/audit.json")).verdict == "pass"
