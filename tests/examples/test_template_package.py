"""The template package offers a plug-in of each kind, and each does its work where params.yaml names it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codex_ml.cli.param_rules import validate_params
from codex_ml.cli.plugin_list import listed
from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.core.plugin_lock import load_locked, refuse_other_code, write_lock
from codex_ml.core.plugins import KINDS, installed, registered
from codex_ml.documents.document import Document, documents_of
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import plan_source
from codex_ml.ingest.sources import read_task
from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.prompt_template import template_named, templated
from codex_ml.policy.rules import parse_policy
from codex_ml.policy.scan import Scanner
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.model.prepare import prepare_model
from codex_ml.train.trackers import open_trackers

TEXTS = ("naïve ✓\n", "", "x = 1\r\n")


def read(kind: str, path: str = "in", **settings: object):
    """(documents, refused) of a source."""
    results = [read_task(task) for task in plan_source(Source(kind=kind, path=path, **settings), max_bytes=1000)]
    documents = [document for result in results for document in documents_of(result.table())]
    return documents, [item for result in results for item in result.refused]


def test_it_has_each_kind_once_and_all_can_be_imported(package, here):
    found = listed("").plugins
    assert [(plugin.kind, plugin.state) for plugin in found] == [(kind, "loaded") for kind in sorted(KINDS)]
    assert {(plugin.distribution, plugin.version) for plugin in found} == {("codex-ml-example", "1.0")}


def test_its_code_can_be_locked_and_a_change_is_refused(package, here):
    for kind in (kind for kind in KINDS if KINDS[kind].locked):
        names = [plugin.name for plugin in installed(kind)]
        write_lock(kind, names, here / kind)
        refuse_other_code(kind, names, here / kind)
    (package / "codex_ml_example/reader.py").write_text("read_blocks = None\n")
    with pytest.raises(UserError, match=r"^reader 'blocks': .*readers has sha256 .*run `codex-ml plugins lock`"):
        refuse_other_code("readers", ["blocks"], here / "readers")


def test_its_reader_gives_documents_with_their_places(locked):
    Path("in").mkdir()
    Path("in/a.txt").write_text("one\ntwo\n---\nthree\n---\n")
    documents, refused = read("blocks", licence="MIT")
    assert [(d.text, d.place, d.licence, d.language) for d in documents] == [
        ("one\ntwo\n", "in/a.txt:1", "MIT", "text"),
        ("three\n", "in/a.txt:2", "MIT", "text"),
    ]
    assert [(item.line, item.reason) for item in refused] == [(3, "empty")]


def failing(path):
    yield {"text": "good"}
    raise ValueError("SECRET")


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (failing, "reader 'mine' failed at in: ValueError; correct the file"),
        (lambda path: [{"text": float("nan")}], "reader 'mine' failed at in: ValueError"),
        (lambda path: [{"text": b"bytes"}], "reader 'mine' failed at in: TypeError"),
        (lambda path: ["text"], "reader 'mine' failed at in: ValueError"),
        (lambda path: 7, "reader 'mine' failed at in: TypeError"),
        ("reader", "reader 'mine' is not callable, but str"),
    ],
)
def test_a_reader_that_fails_is_one_line_without_a_text_of_the_file(here, reader, message):
    Path("in").write_text("SECRET")
    with registered("readers", "mine", reader), pytest.raises(UserError, match=message) as caught:
        read("mine")
    assert "SECRET" not in str(caught.value)


def test_bad_records_of_a_reader_are_refused_like_those_of_a_table(here):
    Path("in").write_text("x")
    records = [{"text": 3}, {"none": "x"}, {"text": "\ud800"}, {"text": "y" * 2000}, {"text": "good", "id": "7"}]
    with registered("readers", "mine", lambda path: iter(records)):
        documents, refused = read("mine")
    assert [(document.text, document.id) for document in documents] == [("good", "7")]
    assert [item.line for item in refused] == [1, 2, 3, 4]
    assert "text must be a text, found a number" in refused[0].reason


def test_a_reader_with_many_records_gives_several_tasks_that_cover_the_file(here):
    Path("in").write_text("x" * 100)
    with registered("readers", "mine", lambda path: ({"text": "z" * 900} for _ in range(10_000))):
        tasks = list(plan_source(Source(kind="mine", path="in"), max_bytes=1000))
    assert len(tasks) == 3
    assert sum(task.bytes for task in tasks) == 100
    assert [task.first_line for task in tasks] == [1, 4595, 9189]  # 4 MiB / (10 + 900 + 2 + 1 bytes), rounded up


def test_its_detector_finds_values(package):
    scanner = Scanner(
        parse_policy(
            "version: 1\ndetectors: [tickets]\nrules:\n  - {id: named, description: d, kind: personal, severity: low, action: allow, literals: [zz], pattern: zz}\n"
        )
    )
    assert [(f.rule, f.start, f.end) for f in scanner.scan("see ABC-1234.")] == [("ticket", 4, 12)]


def test_its_tokenizer_gives_every_text_back_byte_by_byte(locked):
    settings = Tokenizer(kind="bytes", vocab_size=300)
    train_tokenizer(lambda: iter(TEXTS), settings, locked)
    tokenizer = load_tokenizer(locked)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_documents(iter(TEXTS))] == list(TEXTS)
    assert [len(ids) for ids in tokenizer.encode_documents(iter(TEXTS))] == [len(t.encode()) for t in TEXTS]
    assert json.loads((locked / "kind.json").read_text()) == {"kind": "bytes"}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (lambda texts, size: 1 / 0, "tokenizer 'mine' failed: ZeroDivisionError"),
        (lambda texts, size: "{}", "tokenizer 'mine' failed: Exception"),
        (lambda texts, size: None, "must return a tokenizers.Tokenizer or its JSON; it returned NoneType"),
        (3, "tokenizer 'mine' failed: TypeError"),
    ],
)
def test_a_tokenizer_that_fails_is_one_line(here, train, message):
    with registered("tokenizers", "mine", train), pytest.raises(UserError, match=message):
        train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="mine", vocab_size=300), here)


def test_a_tokenizer_with_too_many_tokens_is_refused(locked):
    with pytest.raises(UserError, match=r"returned 256 tokens for a vocabulary of 255$"):
        train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="bytes", vocab_size=258, special_tokens=["<x>"]), locked)


PACKED = {
    "dtype": "<u2", "seq_len": 32, "layout": "packed", "tokenizer_kind": "byte_bpe", "vocab_size": 64,
    "begin": 0, "end": 0, "pad": 1, "loss_on": "completions", "streams": {},
}  # fmt: skip
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "max_positions": 64}


def prepared(architecture: str, folder: Path):
    model = Model(architecture=architecture, **SHAPE)
    options = {"attention": "eager", "seed": 1, "new_tokenizer": True}
    return prepare_model(model, Packed(**PACKED), scratch=folder, **options)


def test_its_architecture_is_built_and_proven_to_keep_documents_apart(locked):
    config = prepared("olmo2", locked).config
    found = (config.model_type, config.hidden_size, config.num_hidden_layers, config.max_position_embeddings)
    assert found == ("olmo2", 32, 2, 64)
    assert (config.vocab_size, config.eos_token_id, config.tie_word_embeddings) == (64, 0, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "must name a causal model of transformers as model_type, not None"),
        ({"model_type": "bert-of-mine"}, "as model_type, not 'bert-of-mine'"),
        ({"model_type": "llama", "vocab_size": 7}, "sets vocab_size, which is not a size of llama"),
        ({"model_type": "llama", "auto_map": {}}, "sets auto_map, which is not a size of llama"),
        ({"model_type": "llama", "hidden": 7}, "sets hidden, which is not a size of llama"),
        (
            {"model_type": "bloom", "hidden_size": 32, "n_head": 2, "n_layer": 2, "initializer_range": 0.5},
            "bloom (leaks between|cannot be trained on packed rows)",
        ),
    ],
)
def test_an_architecture_that_cannot_be_used_is_one_line(here, settings, message):
    with registered("architectures", "mine", lambda **sizes: settings), pytest.raises(UserError, match=message):
        prepared("mine", here)


def test_an_architecture_that_raises_is_one_line(here):
    with (
        registered("architectures", "mine", lambda hidden_size: {}),
        pytest.raises(UserError, match="architecture 'mine' failed: TypeError: "),
    ):
        prepared("mine", here)


def test_its_preset_gives_the_sizes_and_params_win(locked):
    model = validate_params({"model": {"preset": "nano", "layers": 3, "heads": None}}).model
    assert (model.hidden_size, model.layers, model.heads, model.plugins["presets"]) == (32, 3, 2, ("nano",))
    with pytest.raises(UserError, match=r"models/presets.yaml has no nanno; did you mean nano\?"):
        validate_params({"model": {"preset": "nanno"}})


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (lambda: 1 / 0, "preset 'mine' failed: ZeroDivisionError: division by zero"),
        ([1], "preset 'mine' must be a mapping, found list"),
        ({"lr": 1}, "preset 'mine' of a package: lr is not a key of a preset; allowed: architecture, "),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_line(here, preset, message):
    with registered("presets", "mine", preset), pytest.raises(UserError, match=message):
        validate_params({"model": {"preset": "mine"}})


def test_its_metric_is_measured(package):
    metrics = load_metrics(["first_line"])
    rows = np.array([metrics.measure(Pair("", out, "a\nb", "text")) for out in ("a \nc", "b")])
    assert metrics.value(metrics["first_line"], rows.sum(0)) == 0.5
    assert metrics.plugins["first_line"].distribution == "codex-ml-example"


def test_its_augmenter_changes_comments_of_python(locked):
    augment = load_locked("augmenters", "shout")
    assert augment("# one\nx = 1  # two\n", "python", "s") == "# ONE\nx = 1  # two\n"
    assert augment("# one", "text", "s") is None


def test_its_template_asks_a_question(locked):
    document = Document("s", "", "r", "", "MIT", "text", prompt="Add.\n\n### Input:\n1", completion="2")
    (found,) = templated([document], template_named("question"))
    assert (found.prompt, found.completion) == ("Question: Add.\nGiven: 1\nAnswer: ", "2")


def test_its_tracker_gets_parameters_and_curves(package, here):
    (sink,) = open_trackers(Runtime(trackers=["lines"]), here / "logs", "run1", {"seed": 1}, tags={"run": "r"})
    sink.log([{"step": 5, "train/loss": 2.5}])
    sink.observe({"gpus": []})
    sink.close(complete=True)
    lines = [json.loads(line) for line in (here / "logs/lines/run1.ndjson").read_text().splitlines()]
    assert lines == [
        {"config": {"seed": 1}}, {"tags": {"run": "r"}}, {"step": 5, "train/loss": 2.5}, {"complete": True}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *_: 1 / 0, r"runtime.trackers: mine cannot write to .*\(ZeroDivisionError: division by zero\)"),
        (lambda *_: object(), "tracker 'mine' gives an object without the method log"),
        (7, "tracker 'mine' is not callable, but int"),
    ],
)
def test_a_tracker_that_cannot_start_is_one_line(here, make, message):
    with registered("trackers", "mine", make), pytest.raises(UserError, match=message):
        open_trackers(Runtime(trackers=["mine"]), here / "logs", "run1", {})


def test_its_hook_gets_the_event(package, here):
    (here / "logs").mkdir()
    (plugin,) = installed("hooks")
    assert Runtime(on_event=[{"plugin": "to_file"}]).on_event[0].seconds == 10.0
    plugin.load()({"event": "gate_failed", "message": "safety_audit: fail"})
    assert (here / "logs/alerts.txt").read_text() == "gate_failed: safety_audit: fail\n"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tokenizer": {"kind": "byte"}}, "tokenizer.kind: input should be 'byte_bpe', .* or 'bytes'; found 'byte'"),
        ({"model": {"architecture": "olmo"}}, "model.architecture: input should be 'llama', .* or 'olmo2'; found 'olmo'"),
        ({"runtime": {"trackers": ["line"]}}, "runtime.trackers.0: input should be 'tensorboard', .* or 'lines'; found 'line'"),
        ({"ingest": {"sources": [{"kind": "block", "path": "x"}]}}, "ingest.sources.0.kind: .* or 'blocks'; found 'block'"),
        ({"ingest": {"sources": [{"kind": "blocks", "path": "x", "glob": "*"}]}}, "ingest.sources.0.glob has no effect with kind blocks"),
    ],
)  # fmt: skip
def test_a_name_that_is_neither_built_in_nor_installed_is_refused_before_any_work(package, here, params, message):
    with pytest.raises(UserError, match=message):
        validate_params(params)
