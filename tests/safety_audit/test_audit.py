"""The audit of models with a known answer: one that memorised its text, one that learnt nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, read_documents, write_documents
from codex_ml.inference.audit_files import AuditFinding
from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.rows import Rows, rows_of_step
from codex_ml.modeling.train_files import Training
from codex_ml.pack.fitting import Example
from codex_ml.pack.row_writer import StreamFormat, write_stream
from codex_ml.policy.rules import load_policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.audit import (
    audit_metrics,
    audit_record,
    findings_in_documents,
    findings_in_samples,
    measure_extraction,
)
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.extraction import Candidates, Extraction, _is_trivial, seen_rows
from codex_ml.safety_audit.gates import decide, verdict
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

SHAPE = Model(hidden_size=32, intermediate_size=64, layers=1, heads=2, max_positions=32)
SETTINGS = SafetyAudit(windows=20, prefix_tokens=10, suffix_tokens=6, samples=1, sample_tokens=8)


def random_text(seed: int) -> str:
    dice = np.random.Generator(np.random.PCG64(seed))
    return " ".join("".join(chr(97 + c) for c in dice.integers(0, 26, 5)) for _ in range(60))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for each other at this size
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(lambda: [random_text(0)], Tokenizer(vocab_size=300), folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def streams(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("packed")
    texts = {"train": [random_text(1), random_text(2)], "test": [random_text(3), random_text(4)]}
    written = {
        name: write_stream(
            folder,
            name,
            map(Example, tokenizer.encode_documents(documents)),
            StreamFormat(tokenizer.end, np.dtype("<u2"), 32),
        )
        for name, documents in texts.items()
    }
    form = {"dtype": "<u2", "seq_len": 32, "layout": "packed", "loss_on": "completions", "tokenizer_kind": "byte_bpe"}
    special = {"begin": tokenizer.end, "end": tokenizer.end, "pad": tokenizer.pad, "vocab_size": tokenizer.vocab_size}
    Packed(**form, **special, streams=written).write(folder / "pack.json")
    return Rows.open(folder, "train"), Rows.open(folder, "test")


def audit(model, tokenizer, streams, steps=10_000):
    training = Training.model_construct(global_step=steps, rows_a_step=4, seed=1)
    train, test = streams
    seen, held_out = Candidates(train, seen_rows(training, len(train))), Candidates(test, np.arange(len(test)))
    return measure_extraction(model, tokenizer, seen, held_out, settings=SETTINGS, seed=1)


@pytest.fixture(scope="module")
def models(one_thread, tokenizer, streams):
    torch.manual_seed(0)
    vocab = tokenizer.vocab_size
    fresh = build_model(SHAPE, vocab_size=vocab, end=tokenizer.end, pad=tokenizer.pad, seed=1)
    overfit = build_model(SHAPE, vocab_size=vocab, end=tokenizer.end, pad=tokenizer.pad, seed=1)
    batch = {k: torch.from_numpy(v) for k, v in streams[0].batch(np.arange(len(streams[0]))).items()}
    optimizer = torch.optim.AdamW(overfit.parameters(), lr=3e-3)
    targets = int((batch["labels"] >= 0).sum())
    for _ in range(320):
        loss = summed_loss(overfit, batch) / targets
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.3, loss
    return fresh.eval(), overfit.eval()


def test_memorised_text_is_extracted_and_held_out_text_is_not(models, tokenizer, streams):
    fresh, overfit = models
    found = audit(overfit, tokenizer, streams)
    assert found["members"].extracted > 0.8 * found["members"].windows > 0
    assert found["held_out"].extracted == 0 < found["held_out"].windows
    assert found["control"].extracted >= 0.9 * found["control"].windows > 0
    assert audit(fresh, tokenizer, streams)["members"].extracted == 0


def test_gates_fail_the_memorising_model_and_pass_the_fresh_one(models, tokenizer, streams):
    for model, expected in zip(models, ("pass", "fail"), strict=True):
        extraction = audit(model, tokenizer, streams)
        gates = decide(
            policy="enforce", train_secrets=0, generated_secrets=0, planted_recall=1.0, extraction=extraction
        )
        assert verdict(gates) == expected
        whole = audit_record([], [], extraction, gates)
        assert whole.verdict == expected
        assert [gate.status for gate in gates].count("pass") == len(gates) - (expected == "fail")
        assert audit_metrics(whole)["gates"] == {
            "fail": expected == "fail",
            "invalid": 0,
        }


NOTHING, SOME, ALL = Extraction(200, 0, 0.1, 0), Extraction(200, 30, 0.5, 0), Extraction(20, 20, 1.0, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "pass"),
        ({"train_secrets": 1}, "fail"),
        ({"generated_secrets": 1}, "fail"),
        ({"members": SOME}, "fail"),
        ({"members": SOME, "held_out": SOME}, "invalid"),  # the control is extracted too: the text is trivial or leaked
        ({"planted_recall": 0.99}, "invalid"),
        ({"planted_recall": None}, "invalid"),  # a policy of the user's own rules only
        ({"control": Extraction(20, 17, 0.9, 0)}, "invalid"),
        ({"control": Extraction(0, 0, 0.0, 0)}, "invalid"),
        ({"members": Extraction(0, 0, 0.0, 9)}, "invalid"),  # not run is never passed
        ({"train_secrets": 1, "planted_recall": 0.0}, "invalid"),
    ],
)
def test_verdicts(changes, expected):
    good = {"policy": "enforce", "train_secrets": 0, "generated_secrets": 0, "planted_recall": 1.0}
    extraction = {"members": NOTHING, "held_out": NOTHING, "control": ALL}
    extraction |= {name: changes[name] for name in extraction.keys() & changes.keys()}
    others = {name: value for name, value in changes.items() if name not in extraction}
    gates = decide(**{**good, **others}, extraction=extraction)
    assert verdict(gates) == expected


def test_tables_and_repetitions_are_trivial():
    assert _is_trivial("    0x00, 0x00, 0x00, 0x00,\n" * 8)
    assert not _is_trivial("def f(x, y):\n    return x * y + 1\n")


def test_rows_that_were_seen_are_those_of_the_steps():
    training = Training.model_construct(global_step=3, rows_a_step=4, seed=7)
    by_hand = sorted({int(r) for s in range(3) for r in rows_of_step(50, step=s, batch_rows=4, seed=7)})
    assert seen_rows(training, 50).tolist() == by_hand
    assert len(by_hand) == 12
    assert seen_rows(training, 12).tolist() == list(range(12))


@pytest.fixture(scope="module")
def scanner(project):
    return Scanner(load_policy(project / "data/policy.yaml"))


def test_findings_name_the_place_and_never_the_value(tmp_path, scanner):
    secret = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5"
    text = f"import os\ntoken = '{secret}'\n"
    write_documents(tmp_path / "d.parquet", [Document("s==1", "p.py", "0", "", "MIT", "python", text=text)])
    place = {"rule": "github-token", "action": "redact", "severity": "critical", "line": 2, "column": 10}
    found = findings_in_documents(read_documents(tmp_path / "d.parquet"), scanner)
    assert found == [AuditFinding(**place, source="s==1", path="p.py")]
    assert findings_in_samples(["clean", text], scanner) == [AuditFinding(**place, source="generated", path="1")]


def test_missing_split_is_reported(tmp_path, scanner):
    with pytest.raises(UserError, match="is missing"):
        findings_in_documents(read_documents(tmp_path / "none.parquet"), scanner)
