"""The completions task: which documents are chosen, what is written for each, and that no secret is stored."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.evaluate.completions import completions_task
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.evaluation import evaluate
from codex_ml.evaluate.job import EvaluationData, Job, Subject
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.policy.redact import redact
from codex_ml.policy.redacted_output import redacted_output
from codex_ml.policy.rules import load_policy
from codex_ml.policy.scan import Scanner

POLICY = Path(__file__).parents[1] / "project/data/policy.yaml"
SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"  # pragma: allowlist secret


class Successor:
    """A model that has learnt one text by heart: it says what follows the last tokens of the prompt there."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, *texts):
        self.config = SimpleNamespace(is_encoder_decoder=False, eos_token_id=tokenizer.end)
        self.vocab, self.end = tokenizer.vocab_size, tokenizer.end
        self.known = [*(token for text in texts for token in tokenizer.encode(text).tolist()), tokenizer.end]

    def forward(self, input_ids, use_cache):
        logits = torch.zeros(*input_ids.shape, self.vocab)
        for row, ids in enumerate(input_ids.tolist()):
            logits[row, -1, self._next(ids)] = 9
        return SimpleNamespace(logits=logits)

    def _next(self, ids):
        for size in range(min(len(ids), 12), 0, -1):
            for place in range(len(self.known) - size):
                if self.known[place : place + size] == ids[-size:]:
                    return self.known[place + size]
        return self.end

    __call__ = forward


def documents(count=30):
    return [
        Document(
            source="s", path=f"{n}.py", id=f"id{n}", group=f"g{n // 2}", licence="MIT", language="python",
            text=f"def function_{n}(value):\n    return value + {n}\n\n\nfunction_{n}(1)\n",
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path, loaded):
    """run(documents, ...) -> (result, table of rows) of the completions task, with a model that knows `text`."""

    def task(found, *texts, seed=1, metrics=("exact_match", "weighted_accuracy"), clean=str, **settings):
        tokenizer = loaded("byte_bpe")
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write_documents(folder / "test.parquet", found)
        model = Successor(tokenizer, *(texts or [document.content for document in found]))
        settings = {"documents": 8, "max_tokens": 24, **settings}
        job = Job(
            Subject(model, tokenizer, 64, "completions", "fp32", "digest"),
            EvaluationData(folder / "test.parquet", None, clean),
            Evaluate.model_validate({"completions": settings, "batch_size": 3}),
            load_metrics(metrics),
            seed,
            folder,
            folder,
            lambda items, *_: iter(items),
        )
        result = completions_task(job)
        if not result:
            return None, folder
        lines = [json.loads(line) for line in (folder / "completions.ndjson").read_text().splitlines()]
        table = pd.read_parquet(folder / "completions.parquet")
        assert [row["item"] for row in lines] == table["item"].tolist()
        return result["completions"], table

    return task


def test_a_model_that_knows_the_test_set_by_heart_is_right_everywhere(run):
    result, rows = run(documents(), split_at="function")
    assert result.items == len(rows) == 8
    assert result.metrics["exact_match"].value == 1.0
    assert set(rows["finished"]) <= {"end", "length"}
    assert set(rows["split_at"]) == {"function"}
    assert all("return value" in output for output in rows["output"])
    ends = int("id29" in set(rows["item"]))  # the last text that the model knows is the only one with END after it
    assert {name: count for name, count in result.counts.items() if name != "tokens"} == {
        "cut_prompts": 0, "cut_references": 0, "finished_end": ends, "finished_length": 8 - ends, "finished_stop": 0,
        "split_at_function": 8,
    }  # fmt: skip
    assert result.units == rows["unit"].nunique() == len({int(item[2:]) // 2 for item in rows["item"]})
    assert result.settings == {
        "documents": 8, "split_at": "function", "max_tokens": 24, "temperature": 0.0, "top_k": 0, "top_p": 1.0,
        "repetition_penalty": 1.0, "stop": [], "length": 64, "precision": "fp32",
    }  # fmt: skip


def test_the_sample_depends_on_names_only(run):
    _, rows = run(documents())
    texts = [document.content for document in documents()]
    _, again = run(documents()[::-1], *texts)
    pd.testing.assert_frame_equal(rows, again)
    _, other = run(documents(), seed=2, temperature=5.0, top_k=30)
    assert other["prompt"].tolist() == rows["prompt"].tolist()
    assert other["output"].tolist() != run(documents(), seed=3, temperature=5.0, top_k=30)[1]["output"].tolist()
    _, fewer = run(documents(), documents=3)
    assert fewer["item"].tolist() == rows["item"].tolist()[:3]
    kept = [document for document in documents() if document.id in set(rows["item"])]
    _, alone = run(kept, *texts)
    pd.testing.assert_frame_equal(rows, alone)


def test_documents_that_cannot_be_split_are_replaced_and_counted(run):
    found = documents(12) + [
        Document(source="s", path=f"{n}.c", id=f"c{n}", group="", licence="MIT", language="c", text="int x;\n" * 3)
        for n in range(12)
    ]
    result, rows = run(found, split_at="function")
    assert result.items == 8
    assert set(rows["language"]) == {"python"}
    (note,) = result.notes
    count = int(re.findall("[0-9]+", note)[0])
    why = "because each is not Python, and functions are found in Python only"
    assert note == f"documents that are not completed: {count}, {why}"
    assert 0 < count <= 12


def test_no_document_that_can_be_split_is_a_result_without_numbers(run):
    found = [
        Document(source="s", path="a.c", id="c", group="", licence="MIT", language="c", text="int x;\n"),
    ]
    result, rows = run(found, split_at="function")
    assert (result.items, result.metrics, len(rows), len(result.notes)) == (0, {}, 0, 1)


def test_no_completions_are_asked_for(run):
    assert run(documents(), documents=0)[0] is None


def test_metrics_of_likelihood_alone_leave_the_texts(run):
    result, rows = run(documents(), metrics=("bits_per_byte",))
    assert (result.items, result.metrics) == (8, {})
    assert rows["output"].str.len().min() > 0


def test_a_text_without_room_for_a_prompt_is_refused(run):
    message = "evaluate.completions.max_tokens 64 leaves no room for a prompt: the model was trained on 64 tokens"
    with pytest.raises(UserError, match=message):
        run(documents(), max_tokens=64)


def test_weights_of_records_count_in_weighted_accuracy(run):
    """The model knows one of two answers, and that one weighs three times as much as the other."""
    found = [
        Document(source="s", path="", id=id, group="", licence="MIT", language="text", prompt=prompt,
                 completion=completion, meta=json.dumps({"weight": weight}))
        for id, prompt, completion, weight in (("a", "one: ", "tie", 3), ("b", "two: ", "wrong", 1))
    ]  # fmt: skip
    result, rows = run(found, "one: ", "tie")
    assert dict(zip(rows["item"], rows["output"], strict=True))["a"] == "tie"
    assert result.metrics["weighted_accuracy"].value == 0.75
    assert result.metrics["exact_match"].value == 0.5


def content(file):
    """A file of a result folder as text; Parquet is compressed."""
    return pd.read_parquet(file).to_csv() if file.suffix == ".parquet" else file.read_text(encoding="utf-8")


def test_a_secret_that_the_model_writes_is_in_no_file_of_the_result_folder(tmp_path, loaded):
    """Metrics see the raw text: the copy is an exact match, and the stored text holds a placeholder."""
    scanner, tokenizer = Scanner(load_policy(POLICY)), loaded("byte_bpe")
    text = f'def key():\n    return "{SECRET}"\n'
    write_documents(tmp_path / "test.parquet", [replace(documents(1)[0], text=text)])
    subject = Subject(Successor(tokenizer, text), tokenizer, 64, "completions", "fp32", "digest")
    data = EvaluationData(tmp_path / "test.parquet", None, lambda text: redact(text, scanner.scan(text), b"key"))
    completions = {"documents": 8, "max_tokens": 60, "split_at": "function"}
    settings = Evaluate.model_validate({"completions": completions, "ngram_order": 0, "bootstrap": 100})
    found = evaluate(subject, data, settings, tmp_path / "out", seed=1, track=lambda items, *_: iter(items))
    assert found.tasks["completions"].metrics["exact_match"].value == 1.0
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 8
    assert [file.name for file in files if SECRET in content(file)] == []
    rows = pd.read_parquet(tmp_path / "out/results/completions.parquet")
    assert "<SECRET:github-token" in rows["output"][0]
    assert rows["finished"][0] == "end"


def test_the_prompt_decides_with_the_output_what_is_a_secret():
    """As the policy sees it: the name before a value makes it a secret, and a value may begin in the prompt."""

    def clean(text):
        for name in ("password = ", "pass"):
            text = text.replace(f"{name}hunter2", f"{name}<S>")
        return text.replace("AKIA1234", "<K>").replace("edge", "<E>" if text == "edge" else "edge")

    assert redacted_output(clean, "password = ", "hunter2\nrest") == "<S>\nrest"
    assert redacted_output(clean, "x", "hunter2") == "hunter2"
    assert redacted_output(clean, "key AKIA", "1234 rest") == "<K> rest"
    assert redacted_output(clean, "x", "edge") == "<E>"
    assert redacted_output(clean, "", "password = hunter2") == "password = <S>"
    assert redacted_output(clean, "a" * 2000 + "password = ", "hunter2") == "<S>"
    assert redacted_output(clean, "a", "") == ""
