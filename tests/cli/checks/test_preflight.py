"""What only a late stage used to find, `codex-ml check` finds before any work."""

import json
import shutil
import struct
from itertools import product
from pathlib import Path

import pytest

from codex_ml.cli.checks import preflight
from codex_ml.cli.checks.workspace import check_workspace, problems
from codex_ml.cli.param_rules import Params, load_params, validate_params
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.yaml import parse_yaml, read_yaml
from codex_ml.ingest.readers import paths_of
from codex_ml.modeling.positions import check_length
from codex_ml.split.benchmarks import _paths
from codex_ml.train.model.foreign import MODEL_TYPES, read_config
from codex_ml.train.model.weights import TensorEntry

INPUTS = (
    "data/accepted_findings.yaml",
    "data/policy.yaml",
    "data/redaction_key",
    "data/split_ledger",
    "data/sample.lock",
    "models/presets.yaml",
)


@pytest.fixture
def whole(workspace):
    """A workspace with every file that the pipeline reads and that no stage makes."""
    return workspace


def read_yaml_text(text):
    return parse_yaml(text, "test")


def found():
    with pytest.raises(UserError) as error:
        check_workspace()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_workspace_has_no_problem(whole):
    assert list(problems(load_params(), load_pipeline())) == []


@pytest.mark.parametrize("section", [name for name in Params.model_fields if name not in ("runtime", "version")])
def test_a_section_that_params_leaves_out_is_named_with_the_line_to_add(repository, section):
    stages, sections = load_pipeline(repository / "dvc.yaml"), dict.fromkeys(Params.model_fields)
    assert list(preflight.missing_sections(stages, sections)) == []
    del sections[section]
    message = next(preflight.missing_sections(stages, sections))
    assert message.startswith(f"params.yaml has no {section}, so DVC would fail after stage ")
    added = read_yaml_text(message.split("`")[1])
    assert validate_params(added) == Params()
    assert list(preflight.missing_sections(stages, sections | added)) == []


def test_check_finds_a_section_that_is_left_out_and_runtime_may_be(whole):
    sections = read_yaml(Path("params.yaml"))
    del sections["runtime"]
    Path("params.yaml").write_text(json.dumps(sections))
    check_workspace()
    del sections["report"]
    Path("params.yaml").write_text(json.dumps(sections))
    assert found().startswith("params.yaml has no report, so DVC would fail after stage report has run; ")


@pytest.mark.parametrize("name", [*INPUTS, "models/base"])
def test_an_input_that_is_not_there_is_named_with_its_stage(whole, name):
    stages = load_pipeline()
    assert list(preflight.missing_inputs(stages)) == []
    Path(name).rename("away")
    message = next(preflight.missing_inputs(stages))
    assert message.startswith(f"{name} is missing, which stage ")
    assert f"`git checkout {name}`" in message
    Path(f"{name}.dvc").write_text("outs: []\n")
    assert next(preflight.missing_inputs(stages)).endswith(f"; `dvc pull {name}.dvc` fetches it")


def params_with(**sections):
    return validate_params({**sections})


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"path": "models/base/gone"}},
        {"model": {"path": "models/base/gone/model.gguf"}},
        {"tokenizer": {"kind": "local", "path": "models/base/gone"}},
        {"train": {"resume_from": "models/base/gone"}},
    ],
)
def test_a_base_that_is_not_there_is_named_with_what_there_is(whole, sections):
    Path("models/base/other").mkdir()
    [message] = preflight.base_files(params_with(**sections))
    [(section, value)] = sections.items()
    key = "resume_from" if section == "train" else "path"
    assert message.startswith(
        f"params.yaml: {section}.{key} {value[key]} does not exist; models/base holds other; put it"
    )
    Path("models/base/gone.dvc").write_text("outs: []\n")
    [message] = preflight.base_files(params_with(**sections))
    assert message.endswith("; `dvc pull models/base/gone.dvc` fetches it")


def write_model(folder, **config):
    """A folder that a model could be: headers and settings, no sense in the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512, **config}))
    return folder


def test_a_model_that_looks_whole_is_not_a_problem(whole):
    write_model(Path("models/base/m"))
    params = params_with(model={"path": "models/base/m"})
    assert list(preflight.base_files(params)) == []


def cut_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-2])


MODELS = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "a configuration that was cut": (lambda f: (f / "config.json").write_text('{"model_'), "config.json is not valid JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "model_type '' is not one of llama, "),
    "another architecture": (lambda f: (f / "config.json").write_text('{"model_type": "mamba"}'), "model_type 'mamba' is not one of"),
    "a type that is no text": (lambda f: (f / "config.json").write_text('{"model_type": ["llama"]}'), "is not one of"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor"),
    "weights that were cut": (cut_weights, "model.safetensors"),
    "a pointer of Git LFS": (lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "a Git LFS pointer"),
    "pickles": (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), ".bin files can run code"),
    "quantized weights": (lambda f: (f / "config.json").write_text('{"model_type": "llama", "quantization_config": {}}'), "the weights are quantized"),
    "rows longer than its positions": (lambda f: (f / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 128}'), "has 128 positions, but pack.seq_len is 256; lower it"),
    "positions by another name": (lambda f: (f / "config.json").write_text('{"model_type": "gpt2", "n_positions": 64}'), "has 64 positions, but pack.seq_len is 256"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_a_base_model_that_train_would_refuse_is_refused_now(whole, case):
    damage, message = MODELS[case]
    damage(write_model(Path("models/base/m")))
    first = next(preflight.base_files(params_with(model={"path": "models/base/m"})))
    assert first.startswith("params.yaml: model.path: models/base/m")
    assert message in first


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_check_and_train_agree_on_sliding_windows(whole, kind):
    """Rows of 256 tokens; `train` refuses those longer than what the model sees at once."""
    params = params_with(model={"path": "models/base/m"})
    for window, used in product((None, 0, 64, 256), (None, True, False)):
        settings = {"model_type": kind, "sliding_window": window}
        folder = write_model(
            Path("models/base/m"), **settings, **({} if used is None else {"use_sliding_window": used})
        )
        try:
            check_length(
                read_config(folder, [TensorEntry("F32", (10**6,), 0, 4)] * 1000), params.pack.seq_len, "pack.seq_len"
            )
            refused = False
        except UserError:
            refused = True
        named = [line for line in preflight.base_files(params) if "pack.seq_len" in line]
        assert bool(named) == refused, (window, used, named)


def test_audit_windows_longer_than_the_positions_are_named(whole):
    write_model(Path("models/base/m"), max_position_embeddings=300)
    params = params_with(
        pack={"seq_len": 301},
        model={"path": "models/base/m"},
        safety_audit={"prefix_tokens": 200, "suffix_tokens": 101, "sample_tokens": 301},
    )
    assert [line.split(" but ")[1].split(" is ")[0] for line in preflight.base_files(params)] == [
        "pack.seq_len",
        "safety_audit.prefix_tokens + suffix_tokens",
        "safety_audit.sample_tokens",
    ]


TOKENIZERS = {
    "an empty folder": (lambda f: None, "holds neither a tokenizer.json nor one SentencePiece .model file"),
    "two models": (lambda f: [(f / f"{n}.model").write_bytes(b"") for n in "ab"], "(found 2)"),
    "a template in another encoding": (lambda f: [(f / "tokenizer.json").write_text("{}"), (f / "chat_template.jinja").write_bytes(b"\xff")], "the chat template is not UTF-8"),
    "a template that is too long": (lambda f: [(f / "tokenizer.json").write_text("{}"), (f / "chat_template.jinja").write_bytes(b"x" * 70_000)], "chat_template.jinja has 70000 bytes"),
    "a configuration that is no JSON": (lambda f: [(f / "tokenizer.json").write_text("{}"), (f / "tokenizer_config.json").write_text("{")], "tokenizer_config.json"),
}  # fmt: skip


def test_a_tokenizer_that_cannot_get_pieces_is_named(whole):
    """Known from the files: the stage would refuse it after the splits are made."""
    folder = Path("models/base/t")
    folder.mkdir()
    local = {"kind": "local", "path": "models/base/t"}
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}')
    assert list(preflight.base_files(params_with(tokenizer=local))) == []
    [line] = preflight.base_files(params_with(tokenizer={**local, "add_pieces": 4}))
    assert line == (
        "params.yaml: tokenizer.path: tokenizer.add_pieces: models/base/t/tokenizer.json is Unigram; only byte-level "
        "BPE, as in GPT-2, Llama 3 and Qwen, can grow; set it to 0, or name another tokenizer"
    )
    (folder / "tokenizer.json").rename(folder / "their.model")
    [line] = preflight.base_files(params_with(tokenizer={**local, "add_pieces": 4}))
    assert "models/base/t/their.model is a SentencePiece model; only byte-level BPE" in line


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_local_tokenizer_that_cannot_be_read_is_named(whole, case):
    damage, message = TOKENIZERS[case]
    Path("models/base/t").mkdir()
    damage(Path("models/base/t"))
    [line] = preflight.base_files(params_with(tokenizer={"kind": "local", "path": "models/base/t"}))
    assert line.startswith("params.yaml: tokenizer.path: models/base/t") and message in line


def test_a_file_that_is_not_gguf_and_a_missing_reader_are_named(whole, monkeypatch):
    Path("models/base/m.gguf").write_bytes(b"PK\x03\x04")
    params = params_with(
        model={"path": "models/base/m.gguf"}, tokenizer={"kind": "local", "path": "models/base/m.gguf"}
    )
    assert {line.partition(": models")[2] for line in preflight.base_files(params)} == {
        "/base/m.gguf is neither a folder nor a GGUF file"
    }
    Path("models/base/m.gguf").write_bytes(b"GGUF")
    assert list(preflight.base_files(params)) == []
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert all("needs the package gguf; run `" in line for line in preflight.base_files(params))


def test_a_run_to_go_on_from_must_be_one_and_have_steps_left(whole):
    params = params_with(train={"resume_from": "models/base/run", "max_steps": 100})
    Path("models/base/run/last").mkdir(parents=True)
    [line] = preflight.base_files(params)
    assert line.endswith("is not a copy of models/checkpoints: models/base/run/last/state.json is missing")
    for text in ("[]", "null", "{}", '{"step": "100"}'):
        Path("models/base/run/last/state.json").write_text(text)
        assert next(preflight.base_files(params)).endswith("has no number of its step; copy models/checkpoints again")
    Path("models/base/run/last/state.json").write_text('{"step": 100}')
    assert "has done 100 steps, but train.max_steps is 100; raise it" in next(preflight.base_files(params))
    Path("models/base/run/last/state.json").write_text('{"step": 99}')
    assert list(preflight.base_files(params)) == []


def test_a_baseline_that_is_no_result_is_named_before_any_work(workspace):
    params = params_with(evaluate={"compare_to": "data/baselines/first"})
    assert list(preflight.baseline(params_with())) == []
    assert list(preflight.baseline(params)) == [
        "params.yaml: evaluate.compare_to data/baselines/first has no details.json, so it is not a result; copy "
        "reports/evaluate of the other model there, or set it to ''"
    ]
    Path("data/baselines/first").mkdir(parents=True)
    Path("data/baselines/first/details.json").write_text("{}")
    assert list(preflight.baseline(params)) == []


def test_a_metric_that_does_not_exist_is_found_before_any_work():
    [line] = preflight.metrics(params_with(evaluate={"metrics": ["bleu", "crf"]}))
    assert line == "params.yaml: evaluate.metrics: there is no metric 'crf'; did you mean chrf?"
    assert list(preflight.metrics(params_with(evaluate={"metrics": ["bleu", "chrf"]}))) == []
    assert list(preflight.metrics(params_with(evaluate={"metrics": []}))) == []


@pytest.mark.parametrize("path", ["data/benchmarks/he.jsonl", "data/benchmarks/*.jsonl.gz", "data/benchmarks/sub"])
def test_a_benchmark_that_is_not_there_is_named(whole, path):
    Path("data/benchmarks/sub").mkdir()
    [line] = preflight.benchmarks(params_with(split={"benchmarks": [{"path": path}]}))
    assert line.startswith(f"params.yaml: split.benchmarks.0.path {path} matches no file; ")


def test_a_benchmark_that_is_there_is_not_a_problem(whole):
    Path("data/benchmarks/he.jsonl").write_text("{}")
    for path in ("data/benchmarks/he.jsonl", "data/benchmarks/*.jsonl"):
        assert list(preflight.benchmarks(params_with(split={"benchmarks": [{"path": path}]}))) == []


def test_a_benchmark_that_fetch_brings_may_be_missing_but_must_be_pinned(whole):
    def lines(path):
        return list(preflight.benchmarks(params_with(fetch=ON, split={"benchmarks": [{"path": path}]})))

    pin = f"tiny-eval==1.0 --hash=sha256:{'0' * 64} --file=tiny/data/tiny.jsonl.gz --file-hash=sha256:{'0' * 64}"
    Path("data/sample.lock").write_text(f"benchmark {pin}\n")
    for path in ("data/benchmarks/sample/tiny.jsonl.gz", "data/benchmarks/sample/*.gz"):
        assert lines(path) == []
    assert lines("data/benchmarks/sample/tyni.jsonl.gz") == [
        "params.yaml: split.benchmarks.0.path data/benchmarks/sample/tyni.jsonl.gz matches none of the files that "
        "data/sample.lock pins: tiny.jsonl.gz"
    ]
    named = params_with(fetch=ON, evaluate={"benchmarks": ["data/benchmarks/sample/tyni.jsonl.gz"]})
    assert list(preflight.benchmarks(named)) == [
        "params.yaml: evaluate.benchmarks.0 data/benchmarks/sample/tyni.jsonl.gz matches none of the files that "
        "data/sample.lock pins: tiny.jsonl.gz"
    ]
    known = params_with(fetch=ON, evaluate={"benchmarks": ["data/benchmarks/sample/tiny.jsonl.gz"]})
    assert list(preflight.benchmarks(known)) == []
    Path("data/sample.lock").write_text(f"{pin}\n")
    assert lines("data/benchmarks/sample/tiny.jsonl.gz") == []  # one problem gives one line, from `edited_files`
    [wrong] = preflight.edited_files(params_with(fetch=ON | {"sample": False}), {})
    assert wrong.startswith("data/sample.lock:1: expected a line ")


def test_a_file_of_tasks_that_is_not_there_is_named(whole):
    params = params_with(evaluate={"benchmarks": ["data/benchmarks/own.jsonl"]})
    [line] = preflight.benchmarks(params)
    assert line.startswith("params.yaml: evaluate.benchmarks.0 data/benchmarks/own.jsonl matches no file; put it ")
    Path("data/benchmarks/own.jsonl").write_text("{}")
    assert list(preflight.benchmarks(params)) == []
    [line] = preflight.benchmarks(params_with(evaluate={"benchmarks": ["data/benchmarks/*.jsonl"]}))
    assert line.startswith("params.yaml: evaluate.benchmarks.0 data/benchmarks/*.jsonl matches no file; ")


ON = {"benchmarks": True}
GLOBS = {
    "data/benchmarks/**": True,  # Path.glob of Python 3.11 takes a final ** for folders only
    "data/benchmarks/**/*.jsonl": True,
    "data/benchmarks/h*e.jsonl": True,
    "data/benchmarks/h**.jsonl": False,  # Path.glob of Python 3.13 takes it for h*.jsonl
    "data/benchmarks/kept/*.jsonl": False,  # .dvcignore leaves it out of every hash
    "data/benchmarks/*.json": False,
}


@pytest.mark.parametrize(("pattern", "found"), GLOBS.items())
def test_check_and_the_stages_agree_on_every_glob(whole, pattern, found):
    Path("data/benchmarks/kept").mkdir()
    for name in ("he.jsonl", "kept/other.jsonl"):
        Path("data/benchmarks", name).write_text("{}")
    Path(".dvcignore").write_text("/data/benchmarks/kept\n")
    params = params_with(
        split={"benchmarks": [{"path": pattern}]}, ingest={"sources": [{"kind": "jsonl", "path": pattern}]}
    )
    try:
        read = bool(_paths(pattern)) and any(paths_of(params.ingest.sources[0]))
    except UserError:
        read = False
    assert read == found
    assert (not list(preflight.benchmarks(params))) == found
    named = [
        line for line in problems(params, load_pipeline()) if "does not exist" in line or "is not a valid glob" in line
    ]
    assert (not named) == found


def test_quantization_needs_its_package(monkeypatch):
    params = params_with(
        model={"path": "models/base/m", "quantization": "4bit", "lora": {"rank": 4, "targets": ["q_proj"]}},
        tokenizer={"kind": "local", "path": "models/base/m"},
    )
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    [line] = preflight.quantization(params)
    assert line.startswith("params.yaml: model.quantization 4bit needs bitsandbytes; ")
    monkeypatch.setattr(preflight, "find_spec", lambda name: name)
    assert list(preflight.quantization(params)) == []
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert list(preflight.quantization(params_with())) == []


@pytest.mark.parametrize(
    ("sections", "gpu", "message"),
    [
        ({"runtime": {"device": "cuda"}}, False, "runtime.device is cuda, but this machine has no GPU"),
        ({"runtime": {"device": "cuda"}}, True, ""),
        ({"train": {"precision": "fp16"}}, False, "train.precision fp16 is for GPUs"),
        ({"train": {"precision": "fp16"}}, True, ""),
        ({"train": {"precision": "fp16"}, "runtime": {"device": "cpu"}}, True, "train.precision fp16 is for GPUs"),
        ({"train": {"compile": "on"}}, False, "train.compile on needs a C++ compiler"),
        ({"train": {"compile": "auto"}}, False, ""),
    ],
)
def test_hardware_that_is_asked_for_by_name_must_be_there(tmp_path, monkeypatch, sections, gpu, message):
    monkeypatch.setattr(preflight, "GPU_DEVICES", (str(tmp_path),) if gpu else ())
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    lines = list(preflight.hardware(params_with(**sections)))
    assert len(lines) == bool(message)
    assert all(line.startswith(f"params.yaml: {message}") for line in lines)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data/policy.yaml", b"rules: 1\n"),
        ("data/policy.yaml", b"\xff"),
        ("data/split_ledger/all.txt", b"no header\n"),
        ("data/split_ledger/all.txt", b"# codex-ml/ledger/2 salt 0123456789abcdef\n"),
        ("data/sample.lock", b"numpy\n"),
        ("data/sample.lock", b"\xff"),
    ],
)
def test_a_file_that_was_edited_wrongly_is_named_before_its_stage_runs(whole, name, data):
    Path(name).write_bytes(data)
    [line] = preflight.edited_files(params_with(), {})
    assert line.startswith(name)


def test_a_gate_for_a_number_that_no_part_of_the_audit_gives_is_named_with_the_most_similar_number(whole):
    policy = Path("data/policy.yaml")
    before = policy.read_text("utf-8")
    line = before.count("\n") + 1 + before.endswith("gates:\n")
    policy.write_text(before + "  - {number: memorisation.exces, title: none, fail: 0.01}\n", "utf-8")
    assert list(preflight.edited_files(params_with(), {})) == [
        f"data/policy.yaml:{line}: gate memorisation.exces: no part of the audit gives this number; did you mean "
        "memorisation.excess?"
    ]


@pytest.mark.parametrize("data", [b"", b'{"schema": "codex-ml/ledger/1"}\n'])
def test_a_ledger_of_the_former_form_is_named_with_the_command_that_converts_it(whole, data):
    Path("data/split_ledger.ndjson").write_bytes(data)
    shutil.rmtree("data/split_ledger")
    message = "data/split_ledger.ndjson is a ledger in the old format; run `codex-ml ledger convert`"
    assert next(problems(params_with(), load_pipeline())) == message
    assert list(preflight.former_ledger(params_with(split={"ledger": False}))) == []


def test_what_is_switched_off_is_not_asked_for(whole):
    Path("data/split_ledger/all.txt").write_bytes(b"no header\n")
    Path("data/sample.lock").write_bytes(b"numpy\n")
    params = params_with(split={"ledger": False}, fetch={"sample": False})
    assert list(preflight.edited_files(params, {})) == []


def test_what_a_stage_has_read_before_is_not_read_again(whole, monkeypatch):
    from codex_ml.core.hashing import hash_path
    from codex_ml.core.pipeline import Locked

    Path("data/policy.yaml").write_bytes(b"rules: 1\n")
    lock = {"safety_audit": Locked("", {"data/policy.yaml": hash_path(Path("data/policy.yaml")).md5}, {}, {})}
    assert list(preflight.edited_files(params_with(), lock)) == []
    assert len(list(preflight.edited_files(params_with(), {}))) == 1


@pytest.mark.parametrize(("variable", "known", "lines"), [("/tmp", False, 0), (None, True, 0), (None, False, 1)])
def test_a_user_without_a_home_is_reported_before_dvc_starts(monkeypatch, variable, known, lines):
    """`docker run --user 12345` without HOME: DVC 3 ends in a traceback."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    if variable is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", variable)
    if not known:
        monkeypatch.setattr("pwd.getpwuid", nobody)
    problems = list(preflight.home())
    assert len(problems) == lines
    assert all("HOME is not set, so DVC cannot start; set HOME" in problem for problem in problems)


def test_the_libraries_of_the_stages_need_no_user(run_python, tmp_path):
    """torch, transformers, accelerate, DVCLive and matplotlib, as the stages use them."""
    code = """
import os, pwd
def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
for name in ("HOME", "USER", "LOGNAME", "USERNAME", "LNAME"):
    os.environ.pop(name, None)
from pathlib import Path
from codex_ml.report.plots import loss_curve
from codex_ml.train.timings import Timings
from codex_ml.train.tracking import Tracker
from codex_ml.train.model.build import build_model
from codex_ml.train.config import Model
tracker = Tracker(Path("curves"), Timings(Path("events.ndjson")), [])
tracker.log({"step": 1, "train/loss": 2.0})
tracker.finish({})
assert "<svg" in loss_curve([(1, 2.0)], [], best_step=1)
shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2)
build_model(shape, vocab_size=32, end=0, pad=1, seed=1).save_pretrained("model")
import accelerate, torch
accelerate.Accelerator(cpu=True)
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
"""
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_benchmark_to_run_that_is_not_there_is_named(whole):
    [line] = preflight.benchmarks(params_with(evaluate={"benchmarks": ["data/benchmarks/mine.jsonl"]}))
    assert line.startswith("params.yaml: evaluate.benchmarks.0 data/benchmarks/mine.jsonl matches no file; ")
