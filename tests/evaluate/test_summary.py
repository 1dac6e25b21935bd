"""The numbers of a test split are ratios of sums over its documents."""

from __future__ import annotations

import csv
import io
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from codex_ml.core.errors import safe_text
from codex_ml.core.stage import chosen
from codex_ml.core.strict_json import dump_json, parse_json
from codex_ml.documents.document import Document
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.summary import by_source, document_score, summary
from codex_ml.inference.evaluate_files import DocumentScore
from codex_ml.inference.likelihood import (
    perplexity,
)


def scored(**numbers):
    """A document of the source "s" with these numbers."""
    return DocumentScore(id="a", source="s", path="p", **numbers)


def test_perplexity_that_overflows_is_absent_and_the_metrics_stay_json():
    assert perplexity(709.0, 1) == pytest.approx(math.exp(709))
    assert perplexity(710.0, 1) is None
    row = scored(bytes=3, tokens=1, nll=800.0, correct=0, zlib_bits=88)
    numbers = summary([row], Evaluate(), seed=1).as_json()
    assert "perplexity" not in numbers
    assert parse_json(dump_json(numbers)) == numbers


def test_summary_is_the_ratio_of_sums():
    documents = [
        Document("a", "x", "0", "", "MIT", "python", text="ab" * 50),
        Document("b,\r", "y", "1", "", "MIT", "python", text="ü"),
    ]
    scores = [
        SimpleNamespace(nll=math.log(2) * 60, tokens=30, top1=10),
        SimpleNamespace(nll=math.log(2) * 42, tokens=4, top1=4),
    ]
    rows = [
        document_score(document, document.content, score) for document, score in zip(documents, scores, strict=True)
    ]
    numbers = summary(rows, Evaluate(), seed=1).as_json()
    assert numbers["bits_per_byte"] == pytest.approx(1.0, abs=1e-4)  # 102 bits over 102 bytes
    assert numbers["token_accuracy"] == pytest.approx(14 / 34, abs=1e-6)
    assert (
        numbers["interval"]["bits_per_byte"]["low"]
        <= numbers["bits_per_byte"]
        <= numbers["interval"]["bits_per_byte"]["high"]
    )
    assert by_source(rows).split("\n")[2].startswith('"b,\\r",2')


def test_the_table_of_sources_holds_one_row_per_source_whatever_its_name_is():
    names = ["z", "b\r", "a,b", 'say "so"', "line\nend", "nan", "NA", " x", "ü", "\U0001f600", "z"]
    row = scored(bytes=100, tokens=2, nll=50 * math.log(2), correct=1, zlib_bits=300)
    table = by_source([row.model_copy(update={"source": name}) for name in names])
    assert "\r" not in table
    read = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["source"] for row in read] == [safe_text(name) for name in sorted(set(names))]
    assert [row["documents"] for row in read] == ["2" if row["source"] == "z" else "1" for row in read]
    assert {(row["bits_per_byte"], row["zlib_bits_per_byte"]) for row in read} == {("0.5000", "3.0000")}


def test_chats_that_are_scored_as_plain_text_are_counted():
    rows = [scored(bytes=300, tokens=2, nll=3.0, correct=1, zlib_bits=88)]
    plain, chats = (summary(rows, Evaluate(), seed=1, chats=count).as_json() for count in (0, 1))
    assert chats == {**plain, "chats": 1}


def test_a_tokenizer_that_loses_text_gets_no_bits_per_byte():
    rows = [scored(bytes=300, tokens=2, nll=3.0, correct=1, zlib_bits=88)]
    whole, lossy = (summary(rows, Evaluate(), seed=1, lossy=count).as_json() for count in (0, 1))
    assert {"bits_per_byte", "lossy"} & whole.keys() == {"bits_per_byte"}
    assert whole["interval"].keys() == {"bits_per_byte", "token_accuracy", "bits_per_byte_minus_zlib"}
    assert lossy["lossy"] == {
        "documents": 1,
        "reason": "no bits per byte: the tokenizer does not give 1 of 1 test documents back",
    }
    assert lossy["interval"].keys() == {"token_accuracy"}
    compared = runpy.run_path(str(Path(__file__).parents[2] / "stages/evaluate.py"))["COMPARED"]
    assert chosen(lossy, compared)["lossy"] == lossy["lossy"]  # metrics.json says why a number is missing
    assert "lossy" not in chosen(whole, compared)
    kept = whole.keys() - {"bits_per_byte", "interval"}
    assert {name: lossy[name] for name in kept} == {name: whole[name] for name in kept}
    assert lossy.keys() == {*kept, "interval", "lossy"}
    assert by_source(rows).endswith("\ns,0.0144,0.2933,1\n")
    assert by_source(rows, lossy=1).endswith("\ns,,0.2933,1\n")
