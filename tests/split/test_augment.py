"""Copies are in train only, in the group of their original, and none undoes what the split promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.core.plugins import registered
from codex_ml.documents.document import Document, read_documents, write_documents
from codex_ml.split.augment import augment_train
from codex_ml.split.config import Split
from codex_ml.split.duplicates.shingles import shingles_of
from codex_ml.split.redaction import ScreenSettings
from codex_ml.split.split_writer import Counts

SHARED = " ".join(f"word{number}" for number in range(40))


def code(number: int) -> str:
    return f"def f{number}(a):\n    b{number} = a * {number}\n    return b{number} + f{number}(a - {number})\n"


def document(name: str, text: str, *, group: str = "", language: str = "python") -> Document:
    return Document("s", "", name, group, "MIT", language, text=text)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Three splits; the val document shares no text with train."""
    train = [document("one", code(1)), document("two", code(2), group="g"), document("prose", "a b c", language="text")]
    write_documents(tmp_path / "train.parquet", train)
    write_documents(tmp_path / "val.parquet", [document("val", SHARED)])
    write_documents(tmp_path / "test.parquet", [document("test", code(9))])
    return tmp_path


def augment(folder: Path, *names: str, **options: object) -> tuple[list[Document], Counts]:
    counts = Counts(documents=3, bytes=0, groups=1)
    params = Split(augment=names, policy="off", **options)
    augment_train(folder, counts, ScreenSettings(params, None, b"", ""))
    return list(read_documents(folder / "train.parquet")), counts


def test_it_is_off_by_default_and_then_no_byte_changes(splits):
    before = sha256_of(splits / "train.parquet")
    augment(splits)
    assert Split().augment == ()
    assert sha256_of(splits / "train.parquet") == before
    assert not (splits / "augmented.json").exists()


def test_a_copy_follows_its_original_in_one_group_and_val_and_test_stay(splits):
    held_out = [sha256_of(splits / f"{name}.parquet") for name in ("val", "test")]
    documents, counts = augment(splits, "rename_identifiers")
    assert [(d.id, d.group) for d in documents] == [
        ("one", "s/one"),
        ("one+rename_identifiers", "s/one"),
        ("two", "g"),
        ("two+rename_identifiers", "g"),
        ("prose", ""),
    ]
    assert [json.loads(d.meta)["augmented"] for d in documents if d.meta] == ["rename_identifiers"] * 2
    assert "b1" not in documents[1].text and documents[0].text == code(1)
    assert (counts.documents, counts.groups, counts.by["language"]["python"]) == (5, 2, 2)
    assert json.loads((splits / "augmented.json").read_text()) == {"rename_identifiers": {"copies": 2}}
    assert held_out == [sha256_of(splits / f"{name}.parquet") for name in ("val", "test")]
    assert list(splits.glob("augmented.parquet")) == []


def test_a_renamed_copy_is_no_nearer_to_any_document_than_its_original(splits):
    documents, _ = augment(splits, "rename_identifiers")
    others = [code(number) for number in range(20)]
    original, copy = (set(shingles_of([d.text])[0].tolist()) for d in documents[:2])
    for other in others:
        far = set(shingles_of([other])[0].tolist())
        near = [len(own & far) / len(own | far) for own in (original, copy)]
        assert near[1] <= near[0]


def test_a_copy_near_a_held_out_document_is_left_out(splits):
    def into_val(text, language, seed):
        return SHARED

    def partly(text, language, seed):  # 36 shingles of 40 words of val, and 24 of its own: below 0.7
        return SHARED + " " + " ".join(f"own{number}" for number in range(24))

    with registered("augmenters", "near", into_val), registered("augmenters", "far", partly):
        documents, counts = augment(splits, "near", "far")
    assert json.loads((splits / "augmented.json").read_text()) == {
        "near": {"copies": 0, "held_out": 3},
        "far": {"copies": 3},
    }
    assert {d.id for d in documents if "+" in d.id} == {"one+far", "two+far", "prose+far"}
    assert counts.documents == 6


@pytest.mark.parametrize(
    ("threshold", "own", "reason"),
    [(0.55, 45, "held_out"), (0.55, 46, "copies"), (0.56, 11, "held_out"), (0.56, 12, "copies"), (1, 0, "held_out")],
)
def test_the_threshold_itself_counts_as_near(splits, threshold, own, reason):
    """0.55 x 100 is above 55 in binary, so rounding must not keep a copy with 55 of its 100 shingles in val."""
    shared = {0.55: 59, 0.56: 18, 1: 40}[threshold]  # words; the last four begin no shingle in val
    words = [f"v{number}" for number in range(shared)]
    write_documents(splits / "val.parquet", [document("val", " ".join(words))])
    text = " ".join([*words, *(f"own{number}" for number in range(own))])
    total = len(shingles_of([text])[0])
    assert total == shared - 4 + own
    with registered("augmenters", "mine", lambda *_: text):
        augment(splits, "mine", near_duplicate=threshold)
    assert json.loads((splits / "augmented.json").read_text())["mine"] == {"copies": 0, reason: 3}


def test_a_copy_of_a_held_out_document_without_a_shingle_is_left_out(splits):
    write_documents(splits / "val.parquet", [document("val", "four words of val\n")])
    with (
        registered("augmenters", "same", lambda *_: "four words of val"),
        registered("augmenters", "other", lambda *_: "four words of train"),
    ):
        augment(splits, "same", "other")
    assert json.loads((splits / "augmented.json").read_text()) == {
        "same": {"copies": 0, "held_out": 3},
        "other": {"copies": 3},
    }


def test_a_copy_that_holds_a_benchmark_item_is_left_out(splits, monkeypatch):
    monkeypatch.chdir(splits)
    item = " ".join(f"item{number}" for number in range(60))
    Path("data/benchmarks").mkdir(parents=True)
    Path("data/benchmarks/b.jsonl").write_text(json.dumps({"task_id": "t", "prompt": item, "canonical_solution": item}))
    with registered("augmenters", "leak", lambda text, language, seed: f"{text} {item}"):
        augment(splits, "leak", benchmarks=[{"path": "data/benchmarks/b.jsonl"}])
    assert json.loads((splits / "augmented.json").read_text()) == {"leak": {"benchmark": 3, "copies": 0}}


def test_the_seed_is_of_the_document_and_the_salt(splits):
    seen = []
    with registered("augmenters", "mine", lambda text, language, seed: seen.append(seed)):
        augment(splits, "mine", salt="x")
    assert seen == ["x\0s\0\0one", "x\0s\0\0two", "x\0s\0\0prose"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda *_: 1 / 0, "augmenter 'mine' failed: ZeroDivisionError"),
        (lambda *_: b"x", "augmenter 'mine' must return a text or None, found bytes"),
        (3, "augmenter 'mine' failed: TypeError"),
        (lambda *_: "\ud800", "augmenter 'mine' returned half of a surrogate pair"),
    ],
)
def test_an_augmenter_that_fails_is_one_line_and_train_stays(splits, found, message):
    before = sha256_of(splits / "train.parquet")
    with registered("augmenters", "mine", found), pytest.raises(UserError, match=message):
        augment(splits, "mine")
    assert sha256_of(splits / "train.parquet") == before
