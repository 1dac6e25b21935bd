"""Tables, curves and findings of the part memorisation, from suffixes that are known by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from codex_ml.documents.document import Document, write_documents
from codex_ml.inference.likelihood import Window
from codex_ml.modeling.rows import Rows
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.safety_audit import finding_list
from codex_ml.safety_audit.audit_windows import AuditWindow, WindowSet
from codex_ml.safety_audit.extraction import Suffix
from codex_ml.safety_audit.extraction_findings import extraction_findings
from codex_ml.safety_audit.extraction_tables import (
    HELD_OUT,
    TRAIN,
    TRIES,
    Side,
    by_kind,
    by_recency,
    prefix_lengths,
    prefix_windows,
    write_curves,
)
from codex_ml.statistics.proportions import clopper_pearson

from ..pack.byte_tokenizer import ByteTokenizer
from .known_answers import HELD_OUT as HELD_OUT_TEXT
from .known_answers import packed

YES, NO = Suffix(8, 8, 8, 0.0), Suffix(8, 3, 1, -50.0)
SAMPLED = Suffix(8, 7, 7, -5.0)  # p = 0.0067: 103 tries


def window(*, duplicates=1, last_seen=0, start=0, document=0):
    return AuditWindow(Window(np.arange(4), np.ones(3, dtype=bool)), document, start, duplicates, last_seen)


def side(name, once, repeated=(), trivial=(), **curve):
    """Each of the three: (window, suffix) pairs."""
    kinds = {"windows": once, "repeated": repeated, "trivial": trivial}
    windows = WindowSet(*([w for w, _ in pairs] for pairs in kinds.values()))
    suffixes = {kind: [s for _, s in pairs] for kind, pairs in kinds.items()}
    return Side(name, windows, {**suffixes, **curve.get("curve", {})}, prefix=4)


def test_kinds_of_text_are_counted_apart():
    repeated = [(window(duplicates=count), YES if count > 4 else NO) for count in (2, 4, 5, 16, 16, 17, 1000)]
    train = side(TRAIN, [(window(), YES), (window(), NO)], repeated, [(window(), YES)])
    held_out = side(HELD_OUT, [(window(duplicates=0), NO)], [(window(duplicates=1), NO), (window(duplicates=9), YES)])
    lines = by_kind([train, held_out], confidence=0.95)
    assert [(line["set"], line["text"], line["windows"], line["share"]) for line in lines] == [
        ("train", "stands in train once", 2, 0.5),
        ("train", "stands in train 2 to 4 times", 2, 0.0),
        ("train", "stands in train 5 to 16 times", 3, 1.0),
        ("train", "stands in train 17 times or more", 2, 1.0),
        ("train", "trivial", 1, 1.0),
        ("held-out", "does not stand in train", 1, 0.0),
        ("held-out", "stands in train", 2, 0.5),
        ("held-out", "trivial", 0, None),
    ]
    expected = clopper_pearson(1, 2)
    assert (lines[0]["low"], lines[0]["high"]) == pytest.approx((expected.low, expected.high), rel=1e-5)
    assert (lines[-1]["low"], lines[-1]["high"]) == (None, None)


def test_recency_is_counted_in_quarters_of_the_steps():
    """Of 10 steps, 0 to 2 before the last one are the last quarter: 4 * 2 // 10 = 0."""
    seen = {0: YES, 2: NO, 3: YES, 4: YES, 5: NO, 7: NO, 8: NO, 9: YES}
    inside = side(TRAIN, [(window(last_seen=steps), suffix) for steps, suffix in seen.items()])
    lines = by_recency(inside, 10, confidence=0.95)
    assert [(line["last_seen"], line["windows"], line["share"]) for line in lines] == [
        ("last quarter of the steps", 2, 0.5),
        ("third quarter of the steps", 2, 1.0),
        ("second quarter of the steps", 2, 0.0),
        ("first quarter of the steps", 2, 0.5),
    ]


def test_curves_are_written_by_context_and_by_tries(tmp_path):
    job = SimpleNamespace(plots=tmp_path, settings=SimpleNamespace(confidence=0.95))
    inside = side(TRAIN, [(window(), YES), (window(), SAMPLED)], curve={2: [NO], 100: [YES, YES, NO]})
    write_curves(job, [inside, side(HELD_OUT, [(window(), NO)])])
    lines = [line.split(",")[:4] for line in (tmp_path / "extraction_by_prefix.csv").read_text().splitlines()]
    assert lines == [
        ["set", "prefix", "windows", "share"],
        ["train", "2", "1", "0.0"],
        ["train", "4", "2", "0.5"],
        ["train", "100", "3", "0.666667"],
        ["held-out", "4", "1", "0.0"],
    ]
    lines = [line.split(",")[:4] for line in (tmp_path / "extraction_tries.csv").read_text().splitlines()]
    assert lines[1:] == [
        [name, str(tries), count, share]
        for name, count, needed in (("train", "2", 103), ("held-out", "1", 10**21))
        for tries in TRIES
        for share in ["0.0" if name != "train" else "1.0" if tries >= needed else "0.5"]
    ]


def test_contexts_fit_the_rows_and_the_model_and_keep_a_quarter_of_the_windows():
    config = SimpleNamespace(is_encoder_decoder=False, max_position_embeddings=40)
    rows = packed(HELD_OUT_TEXT, HELD_OUT_TEXT[::-1], seq_len=48)
    job = SimpleNamespace(
        subject=SimpleNamespace(model=SimpleNamespace(config=config)),
        settings=SimpleNamespace(prefix_tokens=20, suffix_tokens=5, sizes=SimpleNamespace(windows=8)),
    )
    assert prefix_lengths(job, rows) == [10, 25]
    windows = [
        replace(window(start=start, document=document), window=Window(rows.tokens[start : start + 25], np.ones(24)))
        for document, start in ((0, 10), (1, 48), (0, 20))
    ]
    made = dict(prefix_windows(job, rows, windows))
    assert {length: len(found) for length, found in made.items()} == {10: 2, 25: 1}  # END begins document 1 at 48
    assert made[10][0].tokens.tolist() == rows.tokens[20:35].tolist()
    assert made[25][0].tokens.tolist() == rows.tokens[5:35].tolist()
    job.settings.prefix_tokens = 25
    assert prefix_lengths(job, rows) == [10]
    config.is_encoder_decoder = True
    assert prefix_lengths(job, rows) == []


@pytest.fixture
def job(tmp_path):
    """Two documents of known licences, in rows of 16 bytes."""
    texts = ["alpha = 1\nbeta = 2\ngamma = 3\ndelta = 4\n", "one\r\ntwo\r\nthree\r\nfour\r\nfive\r\nsix\r\nseven\r\n"]
    documents = [
        Document("repo", f"{name}.py", name, "", licence, "python", text=text)
        for name, licence, text in zip("ab", ("MIT", "GPL-3.0-only"), texts, strict=True)
    ]
    files = {name: tmp_path / f"{name}.parquet" for name in ("train", "val", "test")}
    for file in files.values():
        write_documents(file, documents)
    packed_folder = tmp_path / "packed"
    packed_folder.mkdir()
    pack_splits(packed_folder, files, ByteTokenizer(), Pack(seq_len=16), kind="byte_bpe", style="off")
    rows = Rows.open(packed_folder, "train")
    return SimpleNamespace(
        data=SimpleNamespace(train=files["train"], train_rows=rows, packed=packed_folder),
        subject=SimpleNamespace(tokenizer=ByteTokenizer(), training=object()),
        clean=lambda text: text.replace("gamma", "<SECRET>"),
        scanner=SimpleNamespace(scan=lambda text: ()),
    )


def of_stream(job, text, **more):
    """The window of 12 tokens that begins with this text."""
    stream = job.data.train_rows.tokens.astype(np.int64)
    wanted = ByteTokenizer().encode(text).astype(np.int64)
    start = next(at for at in range(len(stream)) if stream[at : at + len(wanted)].tolist() == wanted.tolist())
    document = int(job.data.train_rows.document_of(np.array([start]))[0])
    tokens = Window(stream[start : start + 12], np.ones(11, dtype=bool))
    return replace(window(start=start, document=document, **more), window=tokens)


def test_each_extracted_window_names_its_document_line_licence_and_command(job):
    inside = side(
        TRAIN,
        [(of_stream(job, "gamma"), YES), (of_stream(job, "three"), SAMPLED), (of_stream(job, "alpha"), NO)],
        [(of_stream(job, "five", duplicates=3), YES)],
        [(of_stream(job, "delta"), YES)],
    )
    findings = extraction_findings(job, inside, tries=1000)
    shown = [(f.number.split(".")[1], f.kind, f.severity, f.path, f.line, f.column, f.licence) for f in findings]
    assert shown == [
        ("extracted", "extracted", "high", "a.py", 3, 1, "MIT"),
        ("extracted_in_1000_tries", "extractable", "medium", "b.py", 3, 1, "GPL-3.0-only"),
        ("extracted_repeated", "extracted", "medium", "b.py", 5, 1, "GPL-3.0-only"),
    ]
    assert findings[0].evidence == "<SECRET> = 3\ndelta = 4\n"
    assert findings[0].source == "repo"
    assert all(finding.trace.startswith("codex-ml pack show --row ") for finding in findings)


def test_the_command_of_a_finding_shows_its_text(job, monkeypatch, tmp_path):
    from codex_ml.cli import pack_step

    monkeypatch.setattr(pack_step, "PACKED", job.data.packed)
    monkeypatch.setattr(pack_step, "TRAIN", job.data.train)
    (finding,) = extraction_findings(job, side(TRAIN, [(of_stream(job, "three"), YES)]), tries=1000)
    rows, origins = pack_step.open_train()
    row = pack_step.describe(rows, int(finding.trace.split()[-1]), ByteTokenizer(), origins)
    assert "three" in json.dumps([run.text for piece in row.pieces for run in piece.runs])
    assert {piece.path for piece in row.pieces} == {"b.py"}


def test_only_the_first_findings_are_listed_and_one_more_counts_the_rest(job, monkeypatch):
    monkeypatch.setattr(finding_list, "MOST_LISTED", 4)
    pairs = [(of_stream(job, "alpha"), YES)] * 11
    findings = extraction_findings(job, side(TRAIN, pairs, pairs[:3]), tries=1000)
    assert Counter(finding.number for finding in findings) == {
        "memorisation.extracted": 4 + 1, "memorisation.extracted_repeated": 3,
    }  # fmt: skip
    assert (findings[-1].kind, findings[-1].number) == ("unlisted", "memorisation.extracted")
    assert findings[-1].evidence == "findings of this number that are not listed: 7"
