"""Where tokens of the train stream come from: document, line, licence, and the command that shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.stream_documents import StreamDocuments
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.safety_audit.decoded_document import DecodedDocument
from codex_ml.safety_audit.evidence import EVIDENCE
from codex_ml.safety_audit.trace import TextPlace, named_path, offset_of_token, read_rows, token_at, trace
from codex_ml.safety_audit.window_places import rows_at

from ..pack.byte_tokenizer import ByteTokenizer
from .known_answers import packed

CONTENTS = [
    "first\nsecond\nthird",
    "windows\r\nline ends\r\n\r\nlast",
    "\u00e4 b\u00f6se\n\u65e5\u672c\u8a9e\n\U0001f600\ufffd\n",
    "one old Mac line\rnot another one, and \u2028 is none either\nsecond",
]


def document(number, content, **form):
    form = form or {"text": content}
    return Document("web", f"{number}.txt", f"d{number}", "", f"L-{number}", "text", **form)


@pytest.fixture
def job(tmp_path):
    """The texts above, a record that is dropped before the second one, a record, and a chat, packed in rows of 16."""
    documents = [document(number, content) for number, content in enumerate(CONTENTS)]
    documents.insert(1, document(9, "", prompt="", completion=""))
    documents.append(document(4, "", prompt="ask\n", completion="answer\nmore"))
    files = {name: tmp_path / f"{name}.parquet" for name in ("train", "val", "test")}
    for name, file in files.items():
        write_documents(file, documents if name == "train" else documents[:1])
    folder = tmp_path / "packed"
    folder.mkdir()
    pack_splits(folder, files, ByteTokenizer(), Pack(seq_len=16), kind="byte_bpe", style="off")
    return SimpleNamespace(
        data=SimpleNamespace(train=files["train"], train_rows=Rows.open(folder, "train"), packed=folder),
        subject=SimpleNamespace(tokenizer=ByteTokenizer(), training=object()),
        clean=lambda text: text.replace("9.txt", "hidden"),
        scanner=SimpleNamespace(scan=lambda text: ()),
    )


def test_every_token_has_the_line_and_the_column_of_its_character(job):
    """The reference reads the bytes of each text: the line is the number of LF bytes before, plus one."""
    rows = job.data.train_rows
    contents = [*CONTENTS, "ask\nanswer\nmore"]
    assert len(rows.starts) == len(contents) + 1
    for number, content in enumerate(contents):
        data, begin = content.encode(), int(rows.starts[number]) + 1
        for place in range(len(data)):
            before = data[:place].decode("utf-8", "ignore")  # without the character of which this byte is a part
            at = offset_of_token(DecodedDocument(job, rows, number), begin + place, content)
            if content[len(before)] != "\ufffd":  # its own first bytes decode to the same character
                assert at == len(before)
            (found,) = trace(job, [begin + place])
            assert found.line == before.count("\n") + 1
            assert found.column == at - before.rfind("\n")


def test_the_token_of_every_character_is_found(job):
    """The reference encodes the text before each character: one token per byte."""
    rows = job.data.train_rows
    for number, content in enumerate([*CONTENTS, "ask\nanswer\nmore"]):
        begin = int(rows.starts[number]) + 1
        for offset in (at for at, character in enumerate(content) if character != "\ufffd"):
            found = token_at(rows, number, offset, content, job.subject.tokenizer) - begin
            before, until = (len(content[:end].encode()) for end in (offset, offset + 1))
            assert before <= found < until
    assert token_at(rows, 0, 3, "another text", job.subject.tokenizer) is None
    assert token_at(rows, 0, 99, CONTENTS[0], job.subject.tokenizer) is None


def test_a_place_names_document_line_and_licence(job):
    rows = job.data.train_rows
    begins = rows.starts.astype(int).tolist()
    third = begins[1] + 1 + CONTENTS[1].index("last")
    found = trace(job, [third, begins[0], begins[4] + 5])
    assert [(place.path, place.line, place.column, place.licence) for place in found] == [
        ("1.txt", 4, 1, "L-1"),
        ("0.txt", 1, 1, "L-0"),  # the END before a document belongs to its first line
        ("4.txt", 2, 1, "L-4"),  # prompt and completion are one text
    ]
    assert {place.source for place in found} == {"web"}


def test_a_record_of_a_table_is_named_by_its_id(job):
    """A record of JSONL, CSV or Parquet has no path; the id is the user's own, or a hash that data/corpus lists."""
    documents = [replace(document(number, content), path="") for number, content in enumerate(CONTENTS)]
    write_documents(job.data.train, [documents[0], document(9, ""), *documents[1:]])
    job.clean = lambda text: text.replace("d2", "hidden")
    begins = job.data.train_rows.starts.astype(int).tolist()
    assert [place.path for place in trace(job, begins[:3])] == ["record d0", "record d1", "record hidden"]
    assert named_path(document(3, "text")) == "3.txt"


def test_the_command_names_the_row_that_reads_the_token(job):
    rows = job.data.train_rows
    positions = np.arange(len(rows.tokens) - 1)
    for position, row in zip(positions.tolist(), rows_at(rows, positions).tolist(), strict=True):
        assert any(begin <= position < begin + count for begin, count in rows.row_pieces(row).tolist())
    (place,) = trace(job, [40])
    assert place.command == f"codex-ml pack show --row {rows_at(rows, np.array([40]))[0]}"
    job.subject.training = None  # the stream of a foreign model is not the one that the command reads
    assert trace(job, [40])[0].command == ""


def test_tokens_that_do_not_spell_the_document_have_no_line(job):
    """The file holds other texts than the stream: the tokens themselves are shown."""
    assert offset_of_token(DecodedDocument(job, job.data.train_rows, 0), 12, "another text") is None
    assert offset_of_token(DecodedDocument(job, job.data.train_rows, 0), 0, "another text") == 0
    write_documents(job.data.train, [document(number, "another text") for number in range(9)])
    (place,) = trace(job, [1 + len("first\n")])
    assert (place.path, place.line, place.column, place.evidence) == ("0.txt", 0, 0, "second\nthird<end>"[:12])


def test_canaries_and_texts_of_unknown_files_are_named_as_such(job):
    """No text of a canary is shown."""
    rows = packed([70, 71], [72, 73], [74], seq_len=8, canaries=(1,))
    job.data = SimpleNamespace(train=None, train_rows=rows, packed=None)
    job.subject.training = None
    assert [replace(place, content="") for place in trace(job, [0, 4, 7])] == [
        TextPlace("unknown", evidence="DE"),
        TextPlace("canary"),
        TextPlace("unknown", evidence="H"),
    ]
    assert trace(job, []) == []
    job.data.train_rows = None
    with pytest.raises(ValueError, match="not known"):
        trace(job, [0])


def test_what_is_shown_is_redacted_with_the_whole_document_in_view(job):
    """A window that begins in the middle of a secret does not show the rest of it."""
    content = CONTENTS[1]
    secret = content.index("ends")

    def scan(text):
        if text == content:
            yield SimpleNamespace(start=secret, end=secret + 8, action="redact", rule="key")
            yield SimpleNamespace(start=0, end=len(text), action="allow", rule="injection")

    job.scanner.scan = scan
    begin = int(job.data.train_rows.starts[1]) + 1
    shown = {at: trace(job, [begin + at])[0].evidence for at in (0, secret + 3, secret + 8)}
    assert shown == {0: "windows\r\nline <key>" + content[secret + 8 :], secret + 3: "<key>" + content[secret + 8 :],
                     secret + 8: content[secret + 8 :]}  # fmt: skip
    job.clean = lambda text: text.replace("web", "<S>").replace("last", "<T>")
    place = trace(job, [begin + content.index("last")])[0]
    assert (place.source, place.evidence) == ("<S>", "<T>")


def test_a_long_text_is_cut_after_it_is_redacted(job):
    long = "x" * (EVIDENCE - 3) + "9.txt and more"
    write_documents(job.data.train, [document(0, long)] * 9)
    assert trace(job, [0])[0].evidence == "x" * (EVIDENCE - 3) + "hid"
    assert trace(job, [0])[0].path == "0.txt"


def test_dropped_rows_and_canaries_are_skipped():
    """Stream: row 0, canary, row 2, canary, canary, row 5. Rows 1, 3 and 4 of the split were dropped."""
    stream = StreamDocuments(canaries=(1, 3, 4), dropped=(1, 3, 4))
    assert [stream.row_of(document) for document in range(6)] == [0, None, 2, None, None, 5]
    assert [stream.document_of_row(row) for row in range(6)] == [0, None, 2, None, None, 5]


def test_rows_of_a_file_are_read_by_number(job, tmp_path: Path):
    found = dict(read_rows(job.data.train, {0, 3, 5}))
    assert {row: document.path for row, document in found.items()} == {0: "0.txt", 3: "2.txt", 5: "4.txt"}
    assert list(read_rows(job.data.train, {77})) == []
