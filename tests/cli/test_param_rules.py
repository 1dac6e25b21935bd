"""Every parameter is declared once; each mistake in params.yaml is reported with its line before any work."""

import json
import re
import sys

import pytest

from codex_ml.cli import main as cli
from codex_ml.cli.param_rules import Params, json_schema, load_params, validate_params
from codex_ml.core.errors import UserError
from codex_ml.core.sections import known_keys, nearest_key
from codex_ml.core.yaml import parse_yaml
from codex_ml.train.config import Train


@pytest.fixture(autouse=True)
def _in_a_project(project, monkeypatch):
    """models/presets.yaml is read from the current folder."""
    monkeypatch.chdir(project)


@pytest.fixture(scope="session")
def tree(tree):
    """All but logs/errors.ndjson, to which every refusal adds a line."""
    return lambda folder: {
        name: digest for name, digest in tree(folder).items() if name not in ("logs", "logs/errors.ndjson")
    }


@pytest.fixture(scope="module")
def text(project):
    """params.yaml with every section as a block, one key a line."""
    lines = []
    for section, body in parse_yaml((project / "params.yaml").read_text(encoding="utf-8"), "params.yaml").items():
        if section == "ingest":
            continue
        if isinstance(body, dict):
            lines += [f"{section}:", *(f"  {key}: {json.dumps(value)}" for key, value in body.items())]
        else:
            lines.append(f"{section}: {json.dumps(body)}")
    whole = (project / "params.yaml").read_text(encoding="utf-8")
    ingest = whole[whole.index("ingest:") : whole.index("split:")].rstrip("\n").split("\n")
    return "\n".join([*lines, *ingest]) + "\n"


def place(text, key):
    """Index of the line of `section.name`, found without the code under test."""
    section, _, leaf = key.rpartition(".")
    inside = not section
    for index, line in enumerate(text.split("\n")):
        if section and line and line[0] not in " #":
            inside = line.split(":")[0] == section
        if inside and line.strip().startswith(f"{leaf}:"):
            return index
    raise AssertionError(key)


def with_value(text, key, value):
    lines, index = text.split("\n"), place(text, key)
    lines[index] = lines[index].split(":")[0] + f": {value}"
    return "\n".join(lines), index + 1


def with_name(text, key, name):
    lines, index = text.split("\n"), place(text, key)
    lines[index] = lines[index].replace(key.rpartition(".")[2], name, 1)
    return "\n".join(lines), index + 1


def check(capsys, monkeypatch):
    """Run `python -m codex_ml check` in this process."""
    monkeypatch.setattr(sys, "argv", ["codex-ml", "check"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code, capsys.readouterr()


NUMBER = "expected a number without quotes, found"
VALUES = [
    ("seed", "-1", "input should be greater than or equal to 0; found -1"),
    ("seed", "1.5", "input should be a valid integer, got a number with a fractional part; found 1.5"),
    ("seed", "true", f"{NUMBER} True"),
    ("seed", "4294967296", "input should be less than 4294967296; found 4294967296"),
    ("fetch.sample", "yes", "expected true or false, found 'yes'"),
    ("fetch.sample", "1", "expected true or false, found 1"),
    ("split.near_duplicate", "0.2", "input should be greater than or equal to 0.5; found 0.2"),
    ("split.salt", "7", "expected a string; put quotes around 7"),
    ("split.salt", "''", "string should have at least 1 character; found ''"),
    ("split.licences", "MIT", "input should be a valid list; found 'MIT'"),
    ("split.unknown_licence", "maybe", "input should be 'drop' or 'keep'; found 'maybe'"),
    ("tokenizer.kind", "bpe", "input should be 'byte_bpe', 'unigram', 'wordpiece', 'sentencepiece_bpe', 'sentencepiece_unigram', 'whitespace' or 'local'; found 'bpe'"),
    ("tokenizer.vocab_size", "257", "input should be greater than or equal to 258; found 257"),
    ("pack.seq_len", "4", "input should be greater than or equal to 8; found 4"),
    ("pack.dtype", "uint8", "input should be 'auto', 'uint16' or 'uint32'; found 'uint8'"),
    ("train.lr", "'3e-4'", f"{NUMBER} '3e-4'"),
    ("train.lr", "ten", f"{NUMBER} 'ten'"),
    ("train.lr", "0", "input should be greater than 0; found 0"),
    ("train.lr", ".nan", "input should be a finite number; found nan"),
    ("train.clip_norm", ".inf", "input should be a finite number; found inf"),
    ("train.max_steps", "1e3x", f"{NUMBER} '1e3x'"),
    ("train.precision", "half", "input should be 'auto', 'fp32', 'bf16' or 'fp16'; found 'half'"),
    ("train.beta2", "1", "input should be less than 1; found 1"),
    ("train.micro_batch_size", "0", "input should be greater than 0; found 0"),
    ("train.micro_batch_size", "", "input should be a valid integer; found None"),
    ("evaluate.confidence", "1", "input should be less than 1; found 1"),
    ("evaluate.stride", "-1", "input should be greater than or equal to 0; found -1"),
    ("evaluate.precision", "fp16", "input should be 'fp32', 'bf16' or 'auto'; found 'fp16'"),
    ("evaluate.ngram_order", "9", "input should be less than or equal to 8; found 9"),
    ("evaluate.bootstrap", "99", "input should be greater than or equal to 100; found 99"),
    ("evaluate.metrics", "bits_per_byte", "input should be a valid list; found 'bits_per_byte'"),
    ("evaluate.metrics", "[chrf, chrf]", "chrf is listed twice; remove one"),
    ("evaluate.compare_to", "reports/old", "only folders below data/baselines are a dep of evaluate; copy the folder there"),
    ("safety_audit.keep_raw", "'true'", "expected true or false, found 'true'"),
    ("report.title", "2024", "expected a string; put quotes around 2024"),
    ("ingest.max_document_bytes", "1.5e-3", "input should be a valid integer, got a number with a fractional part; found 0.0015"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), VALUES)
def test_a_wrong_value_ends_with_2_and_its_line(workspace, text, tree, capsys, monkeypatch, key, value, message):
    broken, line = with_value(text, key, value)
    (workspace / "params.yaml").write_text(broken, encoding="utf-8")
    before = tree(workspace)
    code, out = check(capsys, monkeypatch)
    assert (code, out.out, out.err) == (2, "", f"error: params.yaml:{line}: {key}: {message}\n")
    assert tree(workspace) == before


NAMES = [
    ("train.lr", "learning_rate", "train.lr"),
    ("train.lr", "learning_rat", "train.lr"),
    ("train.warmup_steps", "warmup", "train.warmup_steps"),
    ("train.warmup_steps", "warmup_step", "train.warmup_steps"),
    ("train.clip_norm", "max_grad_norm", "train.clip_norm"),
    ("train.accumulation", "gradient_acumulation_steps", "train.accumulation"),
    ("train.micro_batch_size", "per_device_train_batch_size", "train.micro_batch_size"),
    ("train.log_every", "seq_len", "pack.seq_len"),
    ("train.log_every", "zzz", None),
    ("split.licences", "licenses", "split.licences"),
    ("split.val", "validation", "split.val"),
    ("pack.seq_len", "block_size", "pack.seq_len"),
    ("model.heads", "n_head", "model.heads"),
    ("fetch.sample", "sampel", "fetch.sample"),
    ("tokenizer", "tokeniser", "tokenizer"),
    ("seed", "sed", "seed"),
    ("seed", "lr", "train.lr"),
    ("seed", "qqqq", None),
    ("ingest.path", "pth", "ingest.sources.0.path"),
]


@pytest.mark.parametrize(("key", "name", "nearest"), NAMES)
def test_a_misspelt_key_is_reported_with_the_nearest_name(text, key, name, nearest):
    broken, line = with_name(text, key, name)
    section = "ingest.sources.0" if key == "ingest.path" else key.rpartition(".")[0]
    found = f"{section}.{name}".removeprefix(".")
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(broken, "params.yaml"), text=broken)
    told = str(error.value).removesuffix(" (and 1 more)").removesuffix(" (and 2 more)")
    advice = f"; did you mean {nearest}?" if nearest else ""
    assert told == f"params.yaml:{line}: {found} is not a parameter{advice}"


def test_american_spelling_in_a_source_is_reported(text):
    broken = text.replace("    path: data/raw/sample\n", "    path: data/raw/sample\n    license: MIT\n")
    with pytest.raises(
        UserError, match=r"ingest\.sources\.0\.license is not a parameter; did you mean ingest\.sources\.0\.licence\?"
    ):
        validate_params(parse_yaml(broken, "params.yaml"), text=broken)


TOGETHER = [
    ({"train.warmup_steps": "601"}, "train", "train: warmup_steps 601 is longer than max_steps 600"),
    ({"split.val": "0.95"}, "split", "split: val + test is 1; it must be below 1 so that train is not empty"),
    (
        {"model.heads": "5"},
        "model",
        "model: hidden_size 128 must be a multiple of 2 x heads (2 x 5): rotary embeddings rotate pairs within a head",
    ),
    (
        {"pack.seq_len": "257"},
        "pack.seq_len",
        "pack.seq_len 257 is longer than the model's positions; raise model.max_positions (256) or lower pack.seq_len",
    ),
    (
        {"pack.dtype": "uint16", "tokenizer.vocab_size": "65537"},
        "tokenizer.vocab_size",
        "tokenizer.vocab_size 65537 does not fit pack.dtype uint16 (at most 65536 tokens); use uint32 or auto",
    ),
    (
        {"safety_audit.prefix_tokens": "207"},
        "safety_audit.prefix_tokens",
        "safety_audit.prefix_tokens + suffix_tokens is 257, longer than model.max_positions 256",
    ),
    (
        {"safety_audit.sample_tokens": "257"},
        "safety_audit.sample_tokens",
        "safety_audit.sample_tokens 257 is longer than model.max_positions 256",
    ),
    (
        {"model.architecture": "t5"},
        "pack.layout",
        "pack.layout packed puts several documents into a row, but model.architecture t5 reads one; use padded",
    ),
    (
        {"model.architecture": "t5", "pack.layout": "padded", "train.compile": "on"},
        "train.compile",
        "train.compile on needs batches of one shape, but batches of model.architecture t5 are as long as "
        "their longest encoder input; use auto or off",
    ),
    (
        {"evaluate.stride": "257"},
        "evaluate.stride",
        "evaluate.stride 257 is longer than a window of the model (pack.seq_len 256); use at most 256, or 0 for "
        "disjoint windows",
    ),
    (
        {"safety_audit.prefix_tokens": "15", "pack.seq_len": "64"},
        "safety_audit.prefix_tokens",
        "safety_audit.prefix_tokens + suffix_tokens is 65, longer than a row (pack.seq_len 64), so no window of the "
        "audit fits into one; lower them",
    ),
]
BASE = {
    "split.test": "0.05",
    "train.max_steps": "600",
    "model.hidden_size": "128",
    "model.max_positions": "256",
    "safety_audit.suffix_tokens": "50",
    "pack.seq_len": "256",
}


@pytest.mark.parametrize(
    "path", ["data/benchmarks/sample/HumanEval.jsonl.gz", "data/benchmarks/sample/*", "data/benchmarks/sample"]
)
def test_a_benchmark_that_fetch_does_not_bring_is_named_in_one_line(path):
    sections = {"fetch": {"benchmarks": False}, "split": {"benchmarks": [{"path": path}]}}
    with pytest.raises(UserError) as error:
        validate_params(sections)
    assert str(error.value) == (
        "params.yaml: fetch.benchmarks is false, so data/benchmarks/sample is empty; remove its files from "
        "split.benchmarks (without other files: []), or set fetch.benchmarks to true"
    )
    validate_params(sections | {"fetch": {"benchmarks": True}})
    both = sections | {"evaluate": {"benchmarks": ["data/benchmarks/sample/HumanEval.jsonl.gz"]}}
    with pytest.raises(UserError, match=r"remove its files from split\.benchmarks and evaluate\.benchmarks \(without"):
        validate_params(both)
    validate_params(both | {"fetch": {"benchmarks": True}})
    validate_params(sections | {"split": {"benchmarks": [{"path": "data/benchmarks/samples.jsonl"}]}})


@pytest.mark.parametrize(("changes", "key", "message"), TOGETHER)
def test_an_impossible_combination_is_reported_with_its_line(text, changes, key, message):
    for name, value in {**BASE, **changes}.items():
        text, _ = with_value(text, name, value)
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(text, "params.yaml"), text=text)
    assert str(error.value) == f"params.yaml:{place(text, key) + 1}: {message}"


def test_adapters_go_with_the_tokenizer_of_their_model_only():
    adapters = {"model": {"path": "models/base/m", "lora": {"rank": 4, "targets": ["q_proj"]}}}
    message = "model.lora.rank 4 leaves the embedding as it is, but tokenizer.kind byte_bpe makes a new tokenizer"
    with pytest.raises(UserError, match=f"^params.yaml: {message}; use the model's own .tokenizer.kind: local"):
        validate_params(adapters)
    validate_params({**adapters, "tokenizer": {"kind": "local", "path": "models/base/m"}})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"model": {"quantization": "4bit"}},
            "model.quantization 4bit cannot be combined with tokenizer.add_pieces 8: ",
        ),
        (
            {"runtime": {"sharding": "full"}},
            "runtime.sharding full cannot be combined with tokenizer.add_pieces under model.lora; use 0, or all weights",
        ),
    ],
)
def test_adapters_that_train_rows_of_added_pieces_are_whole(more, message):
    def params(pieces):
        model = {"path": "models/base/m", "lora": {"rank": 4, "targets": ["q_proj"]}, **more.get("model", {})}
        tokenizer = {"kind": "local", "path": "models/base/m", "add_pieces": pieces}
        return {**more, "model": model, "tokenizer": tokenizer}

    validate_params(params(0))
    with pytest.raises(UserError, match=f"^params.yaml: {message}"):
        validate_params(params(8))


DEFAULT = f"remove it, or write {Train.model_fields['momentum'].default}, its default"
ONE_RATE = [
    (
        "train:\n  optimizer: muon\nmodel:\n  path: models/base/m\n",
        "2: train.optimizer muon is for a model from scratch, and model.path names a trained one; use auto or adamw",
    ),
    (
        "train:\n  embedding_lr: 0.25\nmodel:\n  path: models/base/m\n",
        "2: train.embedding_lr 0.25 has no effect with model.path, whose weights all train at train.lr; write null",
    ),
    (
        "train:\n  momentum: 0.5\nmodel:\n  path: models/base/m\n",
        f"2: train.momentum 0.5 has no effect with model.path, whose weights train with AdamW; {DEFAULT}",
    ),
    (
        "train:\n  optimizer: adamw\n  momentum: 0.5\n",
        f"3: train.momentum has no effect with train.optimizer adamw; {DEFAULT}",
    ),
]


@pytest.mark.parametrize(("settings", "message"), ONE_RATE)
def test_settings_of_an_optimizer_that_is_not_used_are_reported(settings, message):
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(settings, "params.yaml"), text=settings)
    assert str(error.value) == f"params.yaml:{message}"


@pytest.mark.parametrize(
    "settings",
    [
        {"train": {"optimizer": "adamw", "embedding_lr": 0.25}},
        {"train": {"optimizer": "muon", "momentum": 0.5}},
        {"train": {"momentum": 0.5}},
        {"train": {"optimizer": "adamw"}, "model": {"path": "models/base/m"}},
    ],
)
def test_settings_of_the_optimizer_that_is_used_are_accepted(settings):
    assert validate_params(settings).train.momentum == settings["train"].get("momentum", Train().momentum)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer: sgd", "train.optimizer: input should be 'auto', 'adamw' or 'muon'; found 'sgd'"),
        ("embedding_lr: 0", "train.embedding_lr: input should be greater than 0; found 0"),
        ("momentum: 1", "train.momentum: input should be less than 1; found 1"),
    ],
)
def test_values_of_the_optimizer_have_bounds(setting, message):
    settings = f"train:\n  {setting}\n"
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(settings, "params.yaml"), text=settings)
    assert str(error.value) == f"params.yaml:2: {message}"


def test_a_window_of_the_audit_may_fill_a_row(text):
    for name, value in {**BASE, "safety_audit.prefix_tokens": "14", "pack.seq_len": "64"}.items():
        text, _ = with_value(text, name, value)
    settings = parse_yaml(text, "params.yaml")
    settings["evaluate"]["completions"]["max_tokens"] = 63
    assert validate_params(settings).pack.seq_len == 64


def test_completions_leave_room_for_a_prompt():
    settings = "pack: {seq_len: 128}\nevaluate:\n  completions:\n    max_tokens: 128\n"
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(settings, "params.yaml"), text=settings)
    assert str(error.value) == (
        "params.yaml:4: evaluate.completions.max_tokens 128 leaves no room for a prompt in a row (pack.seq_len 128); "
        "lower it, or set evaluate.completions.documents to 0"
    )
    validate_params({"pack": {"seq_len": 128}, "evaluate": {"completions": {"max_tokens": 127}}})
    audit = {"prefix_tokens": 10, "suffix_tokens": 10}
    validate_params({"pack": {"seq_len": 64}, "evaluate": {"completions": {"documents": 0}}, "safety_audit": audit})


@pytest.mark.parametrize("setting", ["top_k: 5", "top_p: 0.9"])
def test_limits_of_a_draw_have_no_effect_on_greedy_text(setting):
    settings = f"evaluate:\n  completions:\n    {setting}\n"
    key, default = setting.split(":")[0], {"top_k": "0", "top_p": "1.0"}[setting.split(":")[0]]
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(settings, "params.yaml"), text=settings)
    assert str(error.value) == (
        f"params.yaml:3: evaluate.completions.{key} has no effect with evaluate.completions.temperature 0.0; remove it, "
        f"or write {default}, its default"
    )
    validate_params({"evaluate": {"completions": {"temperature": 1, key: 0.5 if key == "top_p" else 5}}})


# What a recipe of training can ask for and cannot have; where the key has no line of its own, its section's is told.
BAD_SETTINGS = [
    ('train:\n  accumulation: 0\n', '2: train.accumulation: input should be greater than 0; found 0'),
    ('train:\n  max_steps: 10\n  warmup_steps: 11\n', '1: train: warmup_steps 11 is longer than max_steps 10'),
    ('train:\n  schedule: wsd\n  warmup_steps: 0.5\n  decay_steps: 0.6\n', '1: train: warmup_steps and decay_steps together are longer than max_steps 600'),
    ('train:\n  schedule: cosin\n', "2: train.schedule: input should be 'cosine', 'linear', 'constant', 'wsd' or 'inverse_sqrt'; found 'cosin'"),
    ('train:\n  ema: 1\n', '2: train.ema: input should be less than 1; found 1'),
    ('train:\n  label_smoothing: -0.1\n', '2: train.label_smoothing: input should be greater than or equal to 0; found -0.1'),
    ('train:\n  early_stopping: {patience: -1}\n', '2: train.early_stopping.patience: input should be greater than or equal to 0; found -1'),
    ('train:\n  early_stopping: {patiens: 3}\n', '2: train.early_stopping.patiens is not a parameter; did you mean train.early_stopping.patience?'),
    ('train:\n  resume_from: models/checkpoints\n', '2: train.resume_from: the pipeline depends only on files below models/base; put it there'),
    ('train:\n  resume_from: models/base/../model\n', '2: train.resume_from: the pipeline depends only on files below models/base; put it there'),
    ('train:\n  keep_best: 0\n', '2: train.keep_best: input should be greater than 0; found 0'),
    ('train:\n  attention: flash_attention_2\n', "2: train.attention: input should be 'auto', 'eager' or 'sdpa'; found 'flash_attention_2'"),
    ('model:\n  lora: {rank: 8}\n', '2: model.lora: targets is empty; name the modules that get an adapter, or all-linear'),
    ('model:\n  lora: {rank: 8, targets: [q_proj]}\n', '1: model: lora needs a trained model to adapt; name one in path, or set lora.rank to 0'),
    ('model:\n  path: models/base/m\n  lora: {rank: 8, targets: q_proj}\n', "3: model.lora.targets: input should be a valid list; found 'q_proj'"),
    ('model:\n  lora: {r: 8}\n', '2: model.lora.r is not a parameter; did you mean model.lora.rank?'),
    ('model:\n  quantization: 4bit\n', '1: model: quantization 4bit is for frozen weights; set lora.rank above 0'),
    ('model:\n  heads: 4\n  kv_heads: 3\n', '1: model: heads 4 must be a multiple of kv_heads 3'),
    ('model:\n  hidden_size: 190\n', '1: model: hidden_size 190 must be a multiple of 2 x heads (2 x 4): rotary embeddings rotate pairs within a head'),
    ('model:\n  path: /models/m\n', '2: model.path: the pipeline depends only on files below models/base; put it there'),
    ('model:\n  path: models/base\n', '2: model.path: the pipeline depends only on files below models/base; put it there'),
    ('model:\n  architecture: bloom\n', "2: model.architecture: input should be 'llama', 'qwen2', 'qwen3', 'mistral', 'gpt2', 'gpt_neox' or 't5'; found 'bloom'"),
    ('tokenizer:\n  kind: local\n', '1: tokenizer: kind local needs a path; the other kinds are trained and must have none'),
    ('tokenizer:\n  add_pieces: 8\n', '1: tokenizer: add_pieces 8 is for kind local; kind byte_bpe is trained: raise vocab_size instead'),
    ('tokenizer:\n  kind: local\n  path: models/base/t\n  add_pieces: -1\n', '4: tokenizer.add_pieces: input should be greater than or equal to 0; found -1'),
    ('tokenizer:\n  path: models/base/t\n', '1: tokenizer: kind local needs a path; the other kinds are trained and must have none'),
    ('tokenizer:\n  special_tokens: [a, a]\n', '2: tokenizer.special_tokens: special tokens must be distinct texts, not empty'),
    ("tokenizer:\n  special_tokens: ['']\n", '2: tokenizer.special_tokens: special tokens must be distinct texts, not empty'),
    ('tokenizer:\n  chat_template: llama\n', "2: tokenizer.chat_template: input should be 'none' or 'chatml'; found 'llama'"),
    ('tokenizer:\n  vocab_size: 65537\npack:\n  dtype: uint16\n', '2: tokenizer.vocab_size 65537 does not fit pack.dtype uint16 (at most 65536 tokens); use uint32 or auto'),
    ('pack:\n  canaries: {repetitions: [0]}\n', '2: pack.canaries.repetitions.0: input should be greater than 0; found 0'),
    ('pack:\n  layout: padding\n', "2: pack.layout: input should be 'packed' or 'padded'; found 'padding'"),
    ('pack:\n  too_long: truncate\n', "2: pack.too_long: input should be 'cut', 'drop' or 'fail'; found 'truncate'"),
    ('runtime:\n  trackers: [comet]\n', "2: runtime.trackers.0: input should be 'tensorboard', 'mlflow' or 'wandb'; found 'comet'"),
    ('runtime:\n  trackers: wandb\n', "2: runtime.trackers: input should be a valid list; found 'wandb'"),
    ('runtime:\n  sharding: full\ntrain:\n  precision: fp16\n', '2: runtime.sharding full cannot be combined with train.precision fp16; use bf16, fp32 or auto'),
    ('runtime:\n  processes: -1\n', '2: runtime.processes: input should be greater than or equal to 0; found -1'),
    ('runtime:\n  prometheus_port: 65536\n', '2: runtime.prometheus_port: input should be less than or equal to 65535; found 65536'),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_a_bad_setting_of_training_is_reported_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(settings, "params.yaml"), text=settings)
    assert str(error.value) == f"params.yaml:{message}"


def test_a_preset_that_does_not_exist_is_reported_with_those_that_do(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/presets.yaml").write_text("tiny: {layers: 2}\nlarge: {layers: 9}\n")
    monkeypatch.chdir(tmp_path)
    for asked, advice in (("tini", "did you mean tiny?"), ("zzz", "it has tiny, large")):
        with pytest.raises(UserError) as error:
            validate_params({"model": {"preset": asked}})
        assert str(error.value) == f"params.yaml: model.preset: models/presets.yaml has no {asked}; {advice}"


def test_null_means_the_size_of_the_preset_and_a_number_for_itself(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/presets.yaml").write_text("small: {layers: 2, heads: 8, hidden_size: 64}\n")
    monkeypatch.chdir(tmp_path)
    sizes = {"layers": 3, "heads": None, "hidden_size": None, "intermediate_size": None}
    model = validate_params({"model": {"preset": "small", **sizes}}).model
    assert (model.layers, model.heads, model.hidden_size, model.intermediate_size) == (3, 8, 64, 512)
    assert validate_params({"model": {"preset": "", **sizes}}).model.heads == 4


def test_a_preset_has_keys_of_model_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/presets.yaml").write_text(
        "small: {layers: 2, dropout: 0.1}\nboth: {layers: 2, path: models/base/x}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^models/presets.yaml: small: dropout is not a key of a preset; allowed: architecture"
    ):
        validate_params({"model": {"preset": "small"}})
    with pytest.raises(UserError, match=r"^models/presets.yaml: both: layers has no effect with path, because that"):
        validate_params({"model": {"preset": "both"}})


def test_a_preset_names_a_model_on_disk_its_quantization_and_its_adapters(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/presets.yaml").write_text(
        "tuned: {path: models/base/m, quantization: 8bit, lora: {rank: 4, targets: [q_proj]}}\n"
    )
    monkeypatch.chdir(tmp_path)
    local = {"tokenizer": {"kind": "local", "path": "models/base/m"}}
    empty = {"path": None, "quantization": None, "lora": {"rank": None, "alpha": None, "targets": None}}
    model = validate_params({"model": {"preset": "tuned", **empty}, **local}).model
    assert (model.path, model.quantization, model.lora.rank, model.lora.alpha) == ("models/base/m", "8bit", 4, 16)
    model = validate_params({"model": {"preset": "tuned", "lora": {"rank": 2}, "quantization": "4bit"}, **local}).model
    assert (model.quantization, model.lora.rank, model.lora.targets) == ("4bit", 2, ("q_proj",))
    with pytest.raises(UserError, match=r"^params.yaml: model.layers has no effect with model.path"):
        validate_params({"model": {"preset": "tuned", "layers": 2}, **local})


SOURCE = "ingest:\n  sources:\n    - kind: files\n      path: data/raw/mine\n"
INSIDE = "only relative paths inside the repository can be traced; copy or link the data there"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "files",
            "folder",
            "3: ingest.sources.0.kind: input should be 'jsonl', 'csv', 'tsv', 'parquet', 'datasets', 'files', 'wheels', 'sdists', 'zip', 'tar' or 'git'; found 'folder'",
        ),
        ("data/raw/mine", "/data", f"4: ingest.sources.0.path: {INSIDE}"),
        ("data/raw/mine", "data/../../x", f"4: ingest.sources.0.path: {INSIDE}"),
        ("data/raw/mine", "''", "4: ingest.sources.0.path: string should have at least 1 character; found ''"),
        (
            SOURCE[20:],
            "    - data/raw\n",
            "3: ingest.sources.0: input should be a mapping with the keys of Source; found 'data/raw'",
        ),
        (
            SOURCE[9:],
            "  sources: []\n",
            "2: ingest.sources: list should have at least 1 item after validation, not 0; found []",
        ),
        (SOURCE, "train:\n", "1: train: input should be a mapping with the keys of Train; found None"),
        (SOURCE, "split:\n  licences: [MIT, 0]\n", "2: split.licences.1: input should be a valid string; found 0"),
    ],
)
def test_one_mistake_in_a_list_is_reported_as_one(old, new, message):
    broken = SOURCE.replace(old, new, 1)
    with pytest.raises(UserError) as error:
        validate_params(parse_yaml(broken, "params.yaml"), text=broken)
    assert str(error.value) == f"params.yaml:{message}"


def test_the_number_of_further_mistakes_is_reported():
    with pytest.raises(UserError, match=r"^params\.yaml: seed: .* \(and 2 more\)$"):
        validate_params({"seed": -1, "train": {"lr": 0, "beta1": 2}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"train:\n  lr: 1e-3\n  lr: 1e-4\n", "params.yaml:3: found duplicate key"),
        (b"train:\n\tlr: 1e-3\n", "params.yaml:2: a tab cannot indent YAML"),
        (
            b"train:\n  learning_rat: 1e-3\n",
            "params.yaml:2: train.learning_rat is not a parameter; did you mean train.lr?",
        ),
        (b"- a\n", "params.yaml: expected a mapping of sections, found list"),
        (b"seed: \xff\n", "params.yaml is not UTF-8 (byte 6)"),
        (None, "params.yaml is missing; `git checkout params.yaml` brings back the committed one"),
    ],
)
def test_a_file_that_is_not_a_mapping_ends_with_2(workspace, tree, capsys, monkeypatch, data, message):
    (workspace / "params.yaml").unlink()
    if data is not None:
        (workspace / "params.yaml").write_bytes(data)
    before = tree(workspace)
    code, out = check(capsys, monkeypatch)
    assert (code, out.out) == (2, "")
    assert out.err.startswith(f"error: {message}")
    assert out.err.count("\n") == 1
    assert tree(workspace) == before


def test_the_module_run_as_a_command_ends_with_2(workspace, text, tree, run_python):
    broken, line = with_value(text, "train.lr", "'3e-4'")
    (workspace / "params.yaml").write_text(broken, encoding="utf-8")
    before = tree(workspace)
    done = run_python("-m", "codex_ml", "check", cwd=workspace)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: params.yaml:{line}: train.lr: expected a number without quotes, found '3e-4'\n"
    assert tree(workspace) == before


@pytest.mark.parametrize(
    ("written", "value"),
    [("3e-4", 3e-4), ("1e-3", 1e-3), ("0.0003", 3e-4), ("3e-05", 3e-5), ("1E-2", 0.01), ("1", 1.0)],
)
def test_a_learning_rate_is_a_float_however_it_is_written(written, value):
    lr = validate_params(parse_yaml(f"train: {{lr: {written}}}", "p.yaml")).train.lr
    assert (type(lr), lr) == (float, value)


def test_a_written_default_changes_nothing_and_params_cannot_be_changed(text):
    assert validate_params({}) == Params()
    with pytest.raises(Exception, match="frozen"):
        Params().seed = 2


@pytest.mark.shipped
def test_params_yaml_is_valid_and_holds_every_key_of_the_schema_on_a_line_of_its_own(repository):
    load_params(repository / "params.yaml")
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    assert not [line for line in text.split("\n") if re.search(r"[{}]|\[.+\]", line.partition("#")[0])]
    written = parse_yaml(text, "params.yaml")
    flat = {f"{s}.{k}" if k else s for s, body in written.items() for k in (body if isinstance(body, dict) else [None])}
    assert flat == {".".join(key.split(".")[:2]) for key in known_keys(Params)}


def test_every_key_of_a_source_is_one_of_the_schema():
    assert nearest_key("ingest.source", Params) == "ingest.sources"


def test_the_schema_file_is_what_the_command_prints(repository, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["codex-ml", "schema"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert printed == (repository / "params.schema.json").read_text(encoding="utf-8")
    assert json.loads(printed) == json_schema()
    assert json.loads(printed)["properties"].keys() == Params.model_fields.keys()
