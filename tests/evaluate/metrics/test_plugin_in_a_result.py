"""A metric of a package stands in the result folder as a built-in one does; one that does not work is listed there."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.evaluation import evaluate
from codex_ml.evaluate.job import EvaluationData, Subject

TEXTS = ["x = 1\n" * count for count in range(1, 26)]


class Bytes:
    """A tokenizer whose id is the byte plus one."""

    begin = end = bos = 0
    pad = chat_template = None

    def encode_documents(self, texts):
        return (np.frombuffer(text.encode(), np.uint8).astype(np.uint32) + 1 for text in texts)

    def decode(self, ids):
        return bytes(int(number) - 1 for number in ids if number).decode()


class Uniform:
    """A model that finds every token equally likely."""

    device, config = "cpu", SimpleNamespace(is_encoder_decoder=False, vocab_size=257)

    def __call__(self, input_ids, use_cache):
        return SimpleNamespace(logits=torch.zeros((*input_ids.shape, 257)))


@pytest.fixture
def run(tmp_path):
    fields = {"source": "s", "group": "", "licence": "MIT", "language": "python"}
    documents = [Document(path=f"{n}.py", id=f"d{n}", text=text, **fields) for n, text in enumerate(TEXTS)]
    write_documents(tmp_path / "test.parquet", documents)
    subject = Subject(Uniform(), Bytes(), 64, "completions", "fp32", "0" * 64)

    def run(*metrics):
        settings = Evaluate(bootstrap=100, completions={"documents": 0}, benchmarks=[], metrics=metrics)
        data = EvaluationData(tmp_path / "test.parquet", None, str)
        return evaluate(subject, data, settings, tmp_path / "out", seed=1, track=lambda items, *_: iter(items))

    return run


def of_documents(code, number):
    return code.replace('"pair"', '"score"').replace("len(item.output)", number)


def test_a_metric_of_a_package_has_a_value_an_interval_and_columns(install, run, tmp_path):
    install(code=of_documents(install.code, "item.bytes"))
    found = run("lengths", "perplexity")
    value = found.documents.metrics["lengths"]
    assert value.value == np.mean([len(text) for text in TEXTS])
    assert value.low < value.value < value.high
    assert (value.signature, value.higher_is_better) == ("characters", False)
    (plugin,) = (plugin.as_json() for plugin in found.plug_ins)
    assert len(plugin.pop("sha256")) == 64  # of its code; test_installed_metrics.py has the value
    assert plugin == {"name": "lengths", "distribution": "far-lengths", "version": "1.5"}
    rows = [json.loads(line) for line in (tmp_path / "out/results/documents.ndjson").read_text().splitlines()]
    assert [row["written"] for row in rows] == [len(text) for text in TEXTS]


def test_a_metric_that_fails_on_a_document_is_listed_and_has_no_value(install, run):
    install(code=of_documents(install.code, "1 / (item.bytes != 60)"))
    found = run()
    assert found.notes == ["metric lengths of far-lengths 1.5: measure failed: ZeroDivisionError"]
    value = found.documents.metrics["lengths"]
    assert (value.value, value.low, value.why) == (None, None, "measure failed: ZeroDivisionError")
    assert found.documents.metrics["perplexity"].value == pytest.approx(257, rel=1e-5)


def test_a_named_metric_that_fails_on_a_document_ends_the_run_and_leaves_no_result(install, run, tmp_path):
    install(code=of_documents(install.code, "1 / (item.bytes != 60)"))
    with pytest.raises(UserError, match=r"metric .lengths. of the package far-lengths .* cannot be used"):
        run("lengths")
    assert not list(tmp_path.glob("out/*"))
