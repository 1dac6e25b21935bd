"""One table of what can be wrong with an input of any kind, with the exact words of each message."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write

BOM = b"\xef\xbb\xbf"
A = b'{"text": "a"}\n'
FORMS = "no text, prompt + completion, or messages in it, found {}; see fields of ingest.sources"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def zipped(*members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def tarred(*members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data or b""))
    return file.getvalue()


def encrypted(data):
    """The flag that says so, in both headers."""
    at, central = data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8
    return data[:at] + b"\1" + data[at + 1 : central] + b"\1" + data[central + 1 :]


OK = ("ok.py", b"x = 1\n")
ONE_ZIP = zipped(OK)
ONE_TAR = tarred(OK)
PARQUET = parquet(text=["a", "b"])
WHOLE = "; nothing of this archive is read"
CUT = "damaged (Compressed file ended before the end-of-stream marker was reached)"

# kind, what the file is called, its bytes, documents, (line, reason) of all that is refused
TABLE = [
    # JSON Lines
    ("jsonl", "in.jsonl", b'{"text": "a"', 0, [(1, "not JSON: Expecting ',' delimiter at character 13")]),
    ("jsonl", "in.jsonl", b'{"text": "a', 0, [(1, "not JSON: Unterminated string starting at character 10")]),
    ("jsonl", "in.jsonl", b"{'text': 'a'}", 0, [(1, "not JSON: Expecting property name enclosed in double quotes at character 2")]),
    ("jsonl", "in.jsonl", A + b'{"text": "a",}', 1, [(2, "not JSON: Illegal trailing comma before end of object at character 13")]),
    ("jsonl", "in.jsonl", A + b"// a comment\n" + A, 2, [(2, "not JSON: Expecting value at character 1")]),
    ("jsonl", "in.jsonl", A + b"\0\0\0\0\n" + A, 2, [(2, "not JSON: Expecting value at character 1")]),
    ("jsonl", "in.jsonl", b'{"text": "a\tb"}', 0, [(1, "not JSON: Invalid control character at character 12")]),
    ("jsonl", "in.jsonl", A[:-1] + A, 0, [(1, "not JSON: Extra data at character 14")]),
    ("jsonl", "in.jsonl", A + b'{"text": "caf\xe9"}\n' + A, 2, [(2, "byte 0xE9 at offset 13 of the line is not UTF-8")]),
    ("jsonl", "in.jsonl", A + BOM + A, 1, [(2, "a byte order mark (U+FEFF) in front of the record; files were joined")]),
    ("jsonl", "in.jsonl", A.decode().encode("utf-16"), 0, [(1, "looks like UTF-16 (or binary); JSON Lines are UTF-8 (RFC 8259 section 8.1)")]),
    ("jsonl", "in.jsonl", b"[\n" + A + b"]\n", 0, [(1, "a JSON array; JSON Lines has one object a line (jq -c '.[]' makes it)")]),
    ("jsonl", "in.jsonl", b'{\n"text": "a"\n}\n', 0, [(1, "one JSON value over several lines; JSON Lines has one object a line (jq -c . makes it)")]),
    ("jsonl", "in.jsonl", A + b"[1]\n", 1, [(2, "expected an object, found list")]),
    ("jsonl", "in.jsonl", b'{"text": "a", "n": NaN}', 0, [(1, "not JSON: NaN is not JSON (RFC 8259 section 6)")]),
    ("jsonl", "in.jsonl", b'{"text": "a", "n": 1e400}', 0, [(1, "not JSON: the number 1e400 is too large for a double")]),
    ("jsonl", "in.jsonl", b'{"text": "a", "text": "b"}', 0, [(1, "not JSON: the key 'text' stands twice in one object")]),
    ("jsonl", "in.jsonl", b'{"text": "a", "n": ' + b"[" * 3000 + b"]" * 3000 + b"}", 0, [(1, "not JSON: nested too deeply, more than 200 levels")]),
    ("jsonl", "in.jsonl", b'{"text": "\\ud800"}', 0, [(1, "a lone surrogate (U+D800) is not text")]),
    ("jsonl", "in.jsonl", b'{"text": "\\u0000"}', 0, [(1, "NUL characters, not text")]),
    ("jsonl", "in.jsonl", b'{"text": null}', 0, [(1, "text is null")]),
    ("jsonl", "in.jsonl", b'{"text": 7}', 0, [(1, "text must be a text, found a number")]),
    ("jsonl", "in.jsonl", b'{"body": "a"}', 0, [(1, FORMS.format("body"))]),
    ("jsonl", "in.jsonl", b"{}", 0, [(1, FORMS.format("nothing"))]),
    ("jsonl", "in.jsonl", b'{"text": "a", "prompt": "b"}', 0, [(1, "more than one of text, prompt + completion, or messages")]),
    ("jsonl", "in.jsonl", b'{"prompt": "b"}', 0, [(1, "prompt and completion go together; completion is missing or null")]),
    ("jsonl", "in.jsonl", b'{"messages": [{"content": "a"}]}', 0, [(1, "messages[0] must be an object with a role")]),
    ("jsonl", "in.jsonl", b'{"text": "a", "group": ["g"]}', 0, [(1, "group must be a text or an integer, found a list")]),
    ("jsonl", "in.jsonl", b"", 0, [(None, "has no records")]),
    ("jsonl", "in.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 0, [(1, "byte 0x89 at offset 0 of the line is not UTF-8"), (2, "not JSON: Expecting value at character 1"), (3, "not JSON: Expecting value at character 1")]),
    # tables
    ("csv", "in.csv", b"text\n\"a\n", 0, [(2, "a quote opened here is never closed")]),
    ("csv", "in.csv", b'text,id\n"a"b,1\nok,2\n', 1, [(2, "text after a closing quote")]),
    ("csv", "in.csv", b'text,id\na"b,1\nok,2\n', 1, [(2, "a quote inside a cell that is not quoted")]),
    ("csv", "in.csv", b"text,id\na\rb,1\nok,2\n", 1, [(2, "a carriage return outside of quotes")]),
    ("csv", "in.csv", b"text,id\na\nb,1,x\nok,2\n", 1, [(2, "1 cell, the header has 2"), (3, "3 cells, the header has 2")]),
    ("csv", "in.csv", b"text,id\ncaf\xe9,1\nok,2\n", 1, [(2, "byte 0xE9 at offset 3 of the record is not UTF-8")]),
    ("csv", "in.csv", b"text,text\na,b\n", 0, [(1, "the header has the name 'text' twice")]),
    ("csv", "in.csv", b"text,\na,b\n", 0, [(1, "the header has an empty name")]),
    ("csv", "in.csv", b"body,id\na,1\n", 0, [(2, FORMS.format("body, id"))]),
    ("csv", "in.csv", b"text;id\na;1\n", 0, [(2, FORMS.format("text;id"))]),
    ("csv", "in.csv", "text\na\n".encode("utf-16"), 0, [(1, "looks like UTF-16 (or binary); expected UTF-8")]),
    ("csv", "in.csv", b"messages\n[1\n", 0, [(2, "messages is not JSON: Expecting ',' delimiter at character 3")]),
    ("csv", "in.csv", b"text,id\n", 0, [(None, "has no records")]),
    ("csv", "in.csv", b"text,n\na\0b,1\n", 0, [(2, "NUL characters, not text")]),
    ("tsv", "in.tsv", b"text\tid\na\n", 0, [(2, "1 cell, the header has 2")]),
    ("tsv", "in.tsv", b"", 0, [(None, "has no records")]),
    # compressed
    ("jsonl", "in.jsonl.gz", A, 0, [(None, "the name says .gz, the first bytes do not")]),
    ("jsonl", "in.jsonl", gzip.compress(A), 0, [(None, "is compressed; let its name end in .gz")]),
    ("jsonl", "in.jsonl.gz", gzip.compress(A)[:-1], 0, [(None, CUT)]),
    ("jsonl", "in.jsonl.gz", gzip.compress(A) + b"rest", 0, [(None, "damaged (Not a gzipped file (b're'))")]),
    ("jsonl", "in.jsonl.gz", gzip.compress(A)[:-1] + b"\1", 0, [(None, "damaged (Incorrect length of data produced)")]),
    ("jsonl", "in.jsonl.bz2", bz2.compress(A)[:-1], 0, [(None, "damaged (the file ends before its last stream does)")]),
    ("csv", "in.csv.gz", gzip.compress(b"text\na\n")[:-1], 0, [(None, CUT)]),
    ("csv", "in.csv", bz2.compress(b"text\na\n"), 0, [(None, "is compressed; let its name end in .bz2")]),
    # Parquet
    ("parquet", "in.parquet", parquet(text=[1, 2]), 0, [(None, "the column text is int64; expected a text column")]),
    ("parquet", "in.parquet", parquet(text=[b"a"]), 0, [(None, "the column text is binary; expected a text column")]),
    ("parquet", "in.parquet", parquet(text=["a", None, ""]), 1, [(1, "text is null"), (2, "empty")]),
    ("parquet", "in.parquet", parquet(body=["a"]), 0, [(0, FORMS.format("body"))]),
    ("parquet", "in.parquet", parquet(text=pa.array([], pa.string())), 0, [(None, "has no rows")]),
    # files
    ("files", "in/a.py", b"x = 'caf\xe9'\n", 0, [(1, "byte 0xE9 at offset 8 is not UTF-8")]),
    ("files", "in/a.py", b"x\n\0", 0, [(2, "NUL bytes, not text")]),
    ("files", "in/a.py", "é\n".encode("utf-16-be"), 0, [(1, "NUL bytes, not UTF-8 text (UTF-16 without a byte order mark, or binary)")]),
    ("files", "in/a.py", b"\xff\xfe\0\xd8", 0, [(1, "begins as UTF-16, but is none at byte 2")]),
    ("files", "in/a.py", b"\n", 0, [(None, "empty")]),
    ("files", "in/a.py", b"x" * 1001, 0, [(None, "longer than 1000 bytes")]),
    ("files", "in/a.txt", b"x", 0, [(None, "has no file that matches **/*.py")]),
    ("files", "a.ipynb", b'{"nbformat": 4,\n"cells": [', 0, [(1, "not JSON (line 2)")]),
    ("files", "a.ipynb", b'{"nbformat": 2}', 0, [(1, "not a notebook of format 3 or 4 (nbformat)")]),
    ("files", "a.ipynb", b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 1}]}', 0, [(1, "not a notebook: the source of a cell is neither a text nor a list of texts")]),
    # zip
    ("zip", "in.zip", b"no zip", 0, [(None, "damaged (File is not a zip file)")]),
    ("zip", "in.zip", ONE_ZIP[:-1], 0, [(None, "damaged (File is not a zip file)")]),
    ("zip", "in.zip", ONE_ZIP.replace(b"x = 1", b"x = 2", 1), 0, [(None, "damaged (Bad CRC-32 for file 'ok.py')")]),
    ("zip", "in.zip", encrypted(ONE_ZIP), 0, [(None, "encrypted")]),
    ("zip", "in.zip", zipped(("../a.py", b"x"), OK), 0, [(None, "a name that leads out of the archive" + WHOLE)]),
    ("zip", "in.zip", zipped(("/a.py", b"x"), OK), 0, [(None, "an absolute name" + WHOLE)]),
    ("zip", "in.zip", zipped(("C:a.py", b"x"), OK), 0, [(None, "an absolute name" + WHOLE)]),
    ("zip", "in.zip", zipped(("a\\b.py", b"x"), OK), 1, [(None, "a name with a backslash")]),
    ("zip", "in.zip", zipped(("a.py", b"caf\xe9"), OK), 1, [(1, "byte 0xE9 at offset 3 is not UTF-8")]),
    ("zip", "in.zip", zipped(("a.py", b"x" * 1001), OK), 1, [(None, "longer than 1000 bytes")]),
    # tar
    ("tar", "in.tar", b"no tar", 0, [(None, "damaged (cut short)")]),
    ("tar", "in.tar", ONE_TAR[:600], 0, [(None, "damaged (cut short)")]),
    ("tar", "in.tar", b"x" * 1024, 0, [(None, "damaged (invalid header)")]),
    ("tar", "in.tar", b"y" + ONE_TAR[1:], 0, [(None, "damaged (bad checksum)")]),
    ("tar", "in.tar.gz", ONE_TAR, 0, [(None, "the name says .gz, the first bytes say something else")]),
    ("tar", "in.tar", gzip.compress(ONE_TAR), 0, [(None, "the name says not compressed, the first bytes say .gz")]),
    ("tar", "in.tgz", gzip.compress(ONE_TAR)[:-4], 0, [(None, CUT)]),
    ("tar", "in.tar", tarred(("../a.py", b"x"), OK), 0, [(None, "a name that leads out of the archive" + WHOLE)]),
    ("tar", "in.tar", tarred(("/a.py", b"x"), OK), 0, [(None, "an absolute name" + WHOLE)]),
    ("tar", "in.tar", tarred(("a.py", None), OK), 0, [(None, "a link that leads out of the archive" + WHOLE)]),
    ("tar", "in.tar", tarred(OK, ("ok.py", b"y")), 0, [(None, "two different members of this name" + WHOLE)]),
    ("tar", "in.tar", tarred(("a.py", b"a\0"), OK), 1, [(1, "NUL bytes, not text")]),
]  # fmt: skip


ROWS = pytest.mark.parametrize(
    ("kind", "name", "data", "documents", "refused"),
    TABLE,
    ids=[f"{number}-{row[1]}-{row[4][0][1][:40]}" for number, row in enumerate(TABLE)],
)


@ROWS
def test_the_reason_of_a_refusal_has_exact_words(kind, name, data, documents, refused):
    write(name, data)
    path = "in" if name.startswith("in/") else name
    found = ingest(kind, path)
    assert ([(item.line, item.reason) for item in found[1]], len(found[0])) == (refused, documents)
    assert all(item.reason.isprintable() and item.path.isprintable() for item in found[1])


NOT_BAD = {"empty", "has no records", "has no rows", "longer than 1000 bytes", "not a regular file"}


@ROWS
def test_only_what_cannot_be_right_counts_as_bad(kind, name, data, documents, refused):
    write(name, data)
    for item in ingest(kind, "in" if name.startswith("in/") else name)[1]:
        assert item.bad is (item.reason not in NOT_BAD and not item.reason.startswith("has no file"))


def test_the_same_row_of_a_truncated_file_is_never_half_a_document():
    for end in range(len(PARQUET)):
        write("in.parquet", PARQUET[:end])
        documents, refused = ingest("parquet", "in.parquet")
        assert documents == [] and len(refused) == 1 and refused[0].line is None, end
        assert refused[0].reason.startswith("damaged, or no Parquet file ("), end


@pytest.mark.parametrize(
    ("data", "kind", "name"),
    [(A * 3, "jsonl", "in.jsonl"), (b'id,text\n1,"a\nb"\n2,c\n', "csv", "in.csv"), (ONE_TAR, "tar", "in.tar")],
)
def test_no_cut_and_no_flipped_byte_is_an_error(data, kind, name):
    for at in range(0, min(len(data), 1100), 7 if kind == "tar" else 1):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            write(name, changed)
            ingest(kind, name)


EMPTY_FOLDER = "ingest.sources: in has no {} file"
PROBLEMS = [
    ("jsonl", "gone", "ingest.sources: gone does not exist; put the data there or remove the source"),
    ("jsonl", "gone/*.jsonl", "ingest.sources: gone/*.jsonl does not exist; put the data there or remove the source"),
    (
        "jsonl",
        "in/**x",
        "ingest.sources: in/**x is not a glob: ** must be a whole part of the path, as in data/**/name; use * inside a name",
    ),
    ("jsonl", "in", EMPTY_FOLDER.format(".jsonl or .ndjson")),
    ("csv", "in", EMPTY_FOLDER.format(".csv")),
    ("tsv", "in", EMPTY_FOLDER.format(".tsv")),
    ("parquet", "in", EMPTY_FOLDER.format(".parquet")),
    ("zip", "in", EMPTY_FOLDER.format(".zip")),
    ("tar", "in", EMPTY_FOLDER.format(".tar or .tgz")),
    ("wheels", "in", "ingest.sources: in has no wheel (*.whl)"),
    ("sdists", "in", "ingest.sources: in has no sdist (*.tar.gz, *.zip)"),
    ("wheels", "file", "ingest.sources: file is not a folder; `kind: wheels` reads a folder"),
    ("datasets", "file", "ingest.sources: file is not a folder; `kind: datasets` reads a folder"),
    ("datasets", "in", "in/state.json is missing"),
]


@pytest.mark.parametrize(("kind", "path", "message"), PROBLEMS)
def test_a_source_that_cannot_be_read_at_all_is_reported(kind, path, message):
    Path("in").mkdir()
    write("file", b"x")
    with pytest.raises(UserError) as error:
        ingest(kind, path)
    assert str(error.value) == message


def test_a_tar_of_negative_size_is_damaged():
    header = bytearray(ONE_TAR)
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    write("in.tar", bytes(header))
    documents, (item,) = ingest("tar", "in.tar")
    assert documents == [] and item.reason.startswith("damaged (")


def test_a_zip_that_says_it_is_longer_than_it_is_is_damaged():
    at = ONE_ZIP.index(b"PK\1\2") + 20
    write("in.zip", ONE_ZIP[:at] + struct.pack("<LL", 900, 900) + ONE_ZIP[at + 8 :])
    documents, (item,) = ingest("zip", "in.zip")
    assert documents == [] and item.bad and item.line is None


def test_a_reason_holds_no_control_character_and_no_surrogate():
    write("in.jsonl", b'{"te\\nxt\\u001b[31m\\ud800": 1}\n')
    _, (item,) = ingest("jsonl", "in.jsonl")
    printable = item.reason.isprintable()  # pytest-xdist cannot send a surrogate, so it must not be in the message
    assert printable
