"""The likelihood of test documents: what is counted, what is refused, and what the result folder holds."""

from __future__ import annotations

import csv
import json
import math
import re
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.pipeline import load_pipeline
from codex_ml.documents.document import Document, write_documents
from codex_ml.evaluate import documents as documents_module
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.evaluation import compared_numbers, evaluate, headlines
from codex_ml.evaluate.job import EvaluationData, Subject
from codex_ml.evaluate.ngram import train_ngram
from codex_ml.inference.evaluate_files import PLOT_FILES, Evaluation
from codex_ml.inference.likelihood import BINS, Score

RESULT = {
    *("details.json", "metrics.json", "results/documents.ndjson", "results/documents.parquet", "results/groups.csv"),
    *("results/groups.parquet", *(f"plots/{name}" for name in PLOT_FILES)),
}
END, FIRST = 0, 2
VOCAB = 256 + FIRST


class Bytes:
    """A tokenizer whose id is the byte plus two; it gives all but the letters `lost` back."""

    begin, end, pad, bos, chat_template = END, END, 1, None, None

    def __init__(self, lost: str = "") -> None:
        self.lost = lost

    def encode(self, text: str) -> Any:
        return (
            np.frombuffer("".join(c for c in text if c not in self.lost).encode(), np.uint8).astype(np.uint32) + FIRST
        )

    def encode_documents(self, texts: Any) -> Any:
        return map(self.encode, texts)

    def decode(self, ids: Any) -> str:
        return bytes(int(number) - FIRST for number in ids if number >= FIRST).decode("utf-8", "replace")


class Uniform:
    """A model that finds every token equally likely, or gives one number for all."""

    device = "cpu"
    config = SimpleNamespace(is_encoder_decoder=False, vocab_size=VOCAB)

    def __init__(self, logit: float = 0.0) -> None:
        self.logit = logit

    def __call__(self, input_ids: Any, use_cache: bool) -> Any:
        return SimpleNamespace(logits=torch.full((*input_ids.shape, VOCAB), self.logit))


def document(number: int, text: str | None = "", **changes: Any) -> Document:
    fields: dict[str, Any] = {"source": f"s{number % 3}", "group": "", "licence": "MIT", "language": "python"}
    return Document(
        path=f"{number}.py", id=f"d{number}", **fields | {"text": "ab\r\n" * number if text == "" else text} | changes
    )


def run(tmp_path: Path, documents: list[Document], **changes: Any) -> tuple[Evaluation, Path]:
    """Evaluate these documents into tmp_path/out."""
    write_documents(tmp_path / "test.parquet", documents)
    model, tokenizer = changes.pop("model", Uniform()), changes.pop("tokenizer", Bytes())
    subject = Subject(model, tokenizer, 32, "completions", "fp32", "0" * 64)
    data = EvaluationData(tmp_path / "test.parquet", changes.pop("train", None), str)
    settings = Evaluate(bootstrap=100, completions={"documents": 0}, **changes)
    out = tmp_path / "out"
    return evaluate(subject, data, settings, out, seed=1, track=lambda items, *_: iter(items)), out


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results/documents.ndjson").read_text(encoding="utf-8").splitlines()]


def test_a_uniform_model_costs_ln_v_per_token_and_the_end_is_a_token_of_no_bytes(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(number) for number in range(1, 31)])
    metrics, characters = found.documents.metrics, 4 * sum(range(1, 31))
    nats = (characters + 30) * math.log(VOCAB)
    words = sum(len(re.split(r"\s+", "ab\r\n" * number)) for number in range(1, 31))
    assert metrics["bits_per_byte"].value == pytest.approx(nats / math.log(2) / characters, rel=1e-6)
    assert metrics["perplexity"].value == pytest.approx(VOCAB, rel=1e-6)
    assert metrics["word_perplexity"].value == pytest.approx(math.exp(nats / words), rel=1e-5)
    assert metrics["byte_perplexity"].value == pytest.approx(2 ** metrics["bits_per_byte"].value, rel=1e-6)
    assert found.documents.counts == {"bytes": characters, "tokens": characters + 30, "chats": 0, "records": 0}
    compressed = sum(8 * len(zlib.compress(b"ab\r\n" * number, 9)) for number in range(1, 31))
    assert metrics["zlib_bits_per_byte"].value == pytest.approx(compressed / characters, abs=1e-8)
    assert all(value.low is not None for name, value in metrics.items() if "ngram" not in name)
    assert rows_of(out)[4]["nll"] == pytest.approx(21 * math.log(VOCAB), rel=1e-6)
    assert Evaluation.of_folder(out) == found


def test_bits_per_byte_of_known_losses_over_characters_of_one_to_four_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11.75 nats over 137 bytes of UTF-8 (CR LF is two) are 0.123734794 bits per byte."""
    text = "naïve = '\U0001f680'\r\n" + "größe → 1\r\n" * 4 + "x = 'Ωмега 文字化け'  # ok\r\n" + "y"
    text += "z" * (137 - len(text.encode()))
    assert len(text.encode()) == 137 > len(text)
    known = [Score(nll, 1, 0, 0, np.zeros((BINS, 3))) for nll in (4.5, 7.25)]
    monkeypatch.setattr(documents_module, "score", lambda model, items, scoring: zip_scores(items, known))
    found, _ = run(tmp_path, [document(1, text[:60]), document(2, text[60:])])
    assert found.documents.metrics["bits_per_byte"].value == 0.123734794
    assert found.documents.metrics["byte_perplexity"].value == pytest.approx(2**0.123734794, abs=1e-8)
    each = [4.5 / len(text[:60].encode()), 7.25 / len(text[60:].encode())]
    wrong = (11.75 / 137, 11.75 / math.log(2) / len(text), sum(each) / 2 / math.log(2))
    assert min(abs(number - 0.123734794) for number in wrong) > 1e-3  # nats, per character, mean over documents


def zip_scores(items: Any, scores: list[Score]) -> Any:
    for _, score in zip(items, scores, strict=True):
        yield score


def test_a_tokenizer_that_loses_text_gets_only_numbers_of_tokens(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(number) for number in range(1, 25)], tokenizer=Bytes(lost="b"))
    reason = "no bits per byte: the tokenizer does not give 24 of 24 test documents back"
    assert found.documents.lossy is not None
    assert found.documents.lossy.as_json() == {"documents": 24, "reason": reason}
    without = {name: value.why for name, value in found.documents.metrics.items() if "ngram" not in name and value.why}
    names = ("bits_per_byte", "word_perplexity", "byte_perplexity", "bits_per_byte_minus_zlib")
    assert without == dict.fromkeys(names, reason)
    assert compared_numbers(found)["lossy"] == {"documents": 24, "reason": reason}
    assert "bits_per_byte" not in compared_numbers(found)
    perplexity = compared_numbers(found)["perplexity"]
    assert list(headlines(found)) == [
        f"perplexity {perplexity} per token on test, no bits per byte",
        f"WARNING: {reason}",
    ]
    with (out / "plots/by_source.csv").open(encoding="utf-8", newline="") as file:
        assert {row["bits_per_byte"] for row in csv.DictReader(file)} == {""}


def test_metrics_json_has_the_numbers_that_people_compare(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(number) for number in range(1, 25)])
    numbers = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert numbers == compared_numbers(found)
    assert numbers.keys() == {"bits_per_byte", "zlib_bits_per_byte", "perplexity", "token_accuracy", "documents"}
    assert numbers["documents"] == 24
    bits, zlib_bits = numbers["bits_per_byte"], numbers["zlib_bits_per_byte"]
    assert list(headlines(found)) == [f"{bits} bits per byte on test, zlib {zlib_bits}"]


def test_records_are_scored_on_their_completion(tmp_path: Path) -> None:
    record = document(1, text=None, prompt="12345", completion="abc")
    found, _ = run(tmp_path, [record])
    assert found.documents.counts == {"bytes": 3, "tokens": 4, "chats": 0, "records": 1}  # the completion and its END


def test_documents_with_nothing_to_score_are_counted_and_named(tmp_path: Path) -> None:
    empty = document(7, text=None, prompt="", completion="")
    found, _ = run(tmp_path, [document(1), empty])
    assert (found.documents.items, found.documents.counts["unscored_empty"]) == (1, 1)
    assert found.documents.notes == [
        "documents with nothing to score (empty): 1, such as d7 of s1: the document has no token"
    ]


@pytest.mark.parametrize("documents", [[], [document(7, text=None, prompt="", completion="")]], ids=["none", "empty"])
def test_a_test_split_without_a_document_to_score_is_refused(tmp_path: Path, documents: list[Document]) -> None:
    with pytest.raises(
        UserError,
        match=r"test\.parquet has no documents that can be scored; add some, or, of a split, raise split\.test",
    ):
        run(tmp_path, documents)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_a_model_that_gives_no_number_is_refused(tmp_path: Path, logit: float) -> None:
    with pytest.raises(CheckFailed, match=r"the model gives document d1 \(s1\) a log-likelihood of nan: its weights"):
        run(tmp_path, [document(1)], model=Uniform(logit))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_stride_longer_than_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.stride 33 is not within a window of 32 tokens"):
        run(tmp_path, [document(1)], stride=33)


def test_one_document_has_values_without_intervals(tmp_path: Path) -> None:
    found, _ = run(tmp_path, [document(3)])
    bits = found.documents.metrics["bits_per_byte"]
    assert bits.value == pytest.approx(13 / 12 * math.log2(VOCAB), rel=1e-6)
    assert (bits.low, bits.why) == (None, "no interval: 1 independent units; at least 20 are needed")


def test_documents_of_a_group_and_equal_documents_are_one_unit(tmp_path: Path) -> None:
    texts = [document(1, group="g"), document(2, group="g"), document(3, "same"), document(4, "same"), document(5)]
    found, out = run(tmp_path, texts)
    assert (found.documents.items, found.documents.units) == (5, 3)
    units = [row["unit"] for row in rows_of(out)]
    assert (units[0] == units[1], units[2] == units[3], len(set(units))) == (True, True, 3)
    assert rows_of(out)[0]["content"] != rows_of(out)[1]["content"]


def test_parquet_and_ndjson_hold_the_same_rows(tmp_path: Path) -> None:
    _, out = run(tmp_path, [document(number) for number in range(1, 8)])
    table = pq.read_table(out / "results/documents.parquet").to_pylist()
    shown = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in table]
    assert shown == rows_of(out)


def test_groups_give_the_numbers_of_their_documents(tmp_path: Path) -> None:
    texts = [document(number, "a" * 40 * number, source="=cmd|x" if number == 2 else "one") for number in range(1, 31)]
    _, out = run(tmp_path, texts)
    frame = pq.read_table(out / "results/groups.parquet").to_pylist()
    by = {(row["by"], row["value"]): row for row in frame}
    assert by["source", "one"]["documents"] == 29
    assert by["source", "=cmd|x"]["bits_per_byte"] == pytest.approx(81 / 80 * math.log2(VOCAB), rel=1e-6)
    assert by["source", "=cmd|x"]["bits_per_byte_low"] is None
    one = by["source", "one"]
    assert one["bits_per_byte_low"] < one["bits_per_byte"] < one["bits_per_byte_high"]
    assert {value for kind, value in by if kind == "bytes"} == {"0 to 255", "256 to 1023", "1024 to 4095"}
    assert "\nsource,'=cmd|x," in (out / "results/groups.csv").read_text(encoding="utf-8")


def test_the_picture_of_the_calibration_has_the_bins_with_predictions(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(number) for number in range(1, 25)], metrics=("bits_per_byte",))
    with (out / "plots/calibration.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["confidence"]) == pytest.approx(1 / VOCAB, rel=1e-4)
    assert float(row["accuracy"]) == pytest.approx(24 / found.documents.counts["tokens"], rel=1e-4)  # the END, id 0
    assert int(row["tokens"]) == found.documents.counts["tokens"]


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    texts = [document(number) for number in range(1, 25)]
    folders = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        _, out = run(tmp_path / name, texts)
        folders.append({f.relative_to(out): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()})
    assert folders[0] == folders[1]
    assert {str(name) for name in folders[0]} == RESULT


def test_only_the_chosen_metrics_are_given_and_the_table_keeps_its_columns(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(1)], metrics=("token_accuracy",))
    assert found.documents.metrics.keys() == {"token_accuracy"}
    assert {"bytes", "nll", "zlib_bits"} <= rows_of(out)[0].keys()


def test_an_unknown_metric_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no metric 'bits_per_bite'; did you mean bits_per_byte"):
        run(tmp_path, [document(1)], metrics=("bits_per_bite",))


def test_the_pipeline_declares_every_picture_and_the_report_reads_them() -> None:
    pipeline = load_pipeline(Path(__file__).parents[2] / "dvc.yaml")
    plots = {f"reports/evaluate/plots/{name}" for name in PLOT_FILES}
    assert plots < set(pipeline["evaluate"].outs)
    of_details = {f"reports/evaluate/plots/{name}" for name in ("pass_at_k.csv", "compared.csv")}
    assert plots - of_details < set(pipeline["report"].deps)
    assert {"reports/evaluate/details.json", "reports/evaluate/results"} < set(
        pipeline["report"].deps
    )  # it reads these


def test_without_a_metric_of_likelihood_the_documents_are_still_scored(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(1), document(2)], metrics=("chrf",))
    assert (found.documents.metrics, found.documents.units, found.bits) == ({}, 2, None)
    assert len(rows_of(out)) == 2


def test_the_number_of_the_n_gram_model_stands_beside_the_model(tmp_path: Path) -> None:
    texts = [document(number) for number in range(1, 31)]
    write_documents(tmp_path / "train.parquet", texts)
    found, out = run(tmp_path, texts, train=tmp_path / "train.parquet")
    baseline = train_ngram([text.content for text in texts], 6)
    bits = sum(baseline.bits(text.content) for text in texts)
    metrics, size = found.documents.metrics, found.documents.counts["bytes"]
    assert metrics["ngram_bits_per_byte"].value == pytest.approx(bits / size, abs=1e-8)
    assert metrics["ngram_bits_per_byte"].signature.endswith(baseline.signature)
    difference = metrics["bits_per_byte_minus_ngram"]
    assert difference.value == pytest.approx(metrics["bits_per_byte"].value - bits / size, abs=1e-8)
    assert difference.low <= difference.value <= difference.high
    assert rows_of(out)[0]["ngram_bits"] == pytest.approx(baseline.bits(texts[0].content), abs=1e-8)


def test_without_an_n_gram_model_its_numbers_are_absent_with_the_reason(tmp_path: Path) -> None:
    found, _ = run(tmp_path, [document(1)], ngram_order=0)
    assert found.documents.metrics["ngram_bits_per_byte"].why == "there is no n-gram model (evaluate.ngram_order is 0)"


def test_completions_of_no_bytes_have_numbers_per_token_only(tmp_path: Path) -> None:
    found, out = run(tmp_path, [document(n, text=None, prompt=f"{n}", completion="") for n in range(1, 25)])
    metrics = found.documents.metrics
    assert found.documents.counts == {"bytes": 0, "tokens": 24, "chats": 0, "records": 24}
    assert metrics["perplexity"].value == pytest.approx(VOCAB, rel=1e-6)
    assert (metrics["bits_per_byte"].value, metrics["bits_per_byte"].why) == (None, "nothing to divide by")
    assert "bits_per_byte" not in json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    with (out / "plots/by_length.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["length"], row["documents"], row["bits_per_byte"]) == ("0 to 255", "24", "")
