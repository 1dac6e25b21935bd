"""Encodings of Python files against `tokenize.open`, and pointers in place of content, in every kind of source."""

from __future__ import annotations

import codecs
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tokenize
import zipfile
from itertools import product
from pathlib import Path

import pytest

from codex_ml.ingest.readers.texts import missing_content, python_source

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write

MARK = codecs.BOM_UTF8
NAMES = ["utf-8", "UTF_8", "utf8", "latin-1", "iso-8859-15", "cp1252", "koi8-r", "shift_jis", "euc-jp", "gbk", "big5", "ascii",
         "mac-roman", "iso2022_jp", "nonsense", "rot13", "hex", "utf-8-sig"]  # fmt: skip
COOKIES = ["# coding: {}", "# -*- coding: {} -*-", "#!/usr/bin/env python3 coding={}", "# vim: set fileencoding={} :", "#\tcoding:\t{}",
           "\f# coding: {}", "  # coding={}", "x = 1  # coding: {}", "s = '# coding: {}'", "# coding : {}", "# Coding: {}"]  # fmt: skip
BEFORE = ["", "#!/bin/sh\n", "\n", " \t\f\n", "'''doc'''\n", "# one\n# two\n"]
BODIES = ["a = 1", "name = 'caf\u00e9'", "text = '\u65e5\u672c'"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def opened(data):
    """The text that `tokenize.open` decodes from a file, with its line ends unchanged; None when it raises."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        with io.TextIOWrapper(io.BytesIO(data), encoding, newline="") as file:
            return file.read()
    except (SyntaxError, UnicodeError, LookupError):
        return None


def encoded(text, name):
    try:
        return text.encode(name)
    except (LookupError, UnicodeError):
        return text.encode("latin-1", "replace")


def ours(data):
    try:
        return python_source(data)
    except ValueError:
        return None


def test_a_python_file_is_read_as_tokenize_opens_it_by_cookie_mark_place_and_line_end():
    seen = {True: 0, False: 0}
    for name, cookie, before, body, mark, end in product(
        NAMES, COOKIES, BEFORE, BODIES, (b"", MARK), ("\n", "\r\n", "\r")
    ):
        text = (before + cookie.format(name) + "\n" + body + "\n").replace("\n", end)
        for data in {mark + encoded(text, name), mark + encoded(text, "utf-8")}:
            expected = opened(data)
            assert ours(data) == expected, data
            seen[expected is None] += 1
    assert min(seen.values()) > 2000  # both answers came up


def test_no_cookie_no_line_end_and_no_text_are_read_as_tokenize_opens_them():
    for data in [b"", b"\n", MARK, MARK + b"\n", b"# coding: latin-1", b"\n# coding: cp1252", b"a", b"\xe9", b"#\xe9\n# coding: latin-1\n",
                 b"#\n#\xe9 coding: latin-1\n", b"\n\n# coding: latin-1\n\xe9"]:  # fmt: skip
        assert ours(data) == opened(data), data


@pytest.mark.parametrize("name", ["utf-16", "utf-32-le", "cp037", "punycode", "idna", "undefined", "base64", "zlib"])
def test_an_encoding_that_cannot_read_its_own_cookie_is_refused(name):
    write("in/a.py", f"#\n# coding: {name}\nx = 1\n")
    documents, (item,) = ingest("files")
    assert documents == [] and item.bad
    assert (item.line, item.reason) == (2, f"the cookie names {name!r}, which is not an encoding of Python source")


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"# coding: latin1-9\n", 1, "the cookie names 'latin1-9', which is not an encoding of Python source"),
        (
            MARK + b"#\n# coding: cp1252\n",
            2,
            "the byte order mark of UTF-8 and the cookie 'cp1252' contradict each other",
        ),
        (b"\n\n# coding: latin-1\nx = '\xfc'\n", 4, "byte 0xFC at offset 25 is not UTF-8"),
        (MARK + b"a\nb = '\xfc'\n", 2, "byte 0xFC at offset 10 is not UTF-8"),
        (b"# coding: cp1252\nx = '\x81'\n", 2, "byte 0x81 at offset 22 is not cp1252"),
        (b"# caf\xe9\n# coding: latin-1\n", 1, "byte 0xE9 at offset 5 is not UTF-8"),
    ],
)
def test_what_is_wrong_with_an_encoding_has_a_line(data, line, reason):
    write("in/a.py", data)
    _, (item,) = ingest("files")
    assert (item.path, item.line, item.reason, item.bad) == ("a.py", line, reason, True)


def put(kind, files):
    """A source of this kind with these files in it; returns its path."""
    shutil.rmtree("in", ignore_errors=True)
    Path("in").mkdir()
    if kind in ("files", "git"):
        for name, data in files.items():
            write(f"in/{name}", data)
        if kind == "git":
            run = ["git", "-C", "in", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "core.autocrlf=false"]
            for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
                subprocess.run([*run, *words], check=True)
        return "in"
    if kind in ("zip", "wheels"):
        name = "in/pkg-1-py3-none-any.whl" if kind == "wheels" else "in.zip"
        with zipfile.ZipFile(name, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        return "in" if kind == "wheels" else name
    name = "in/pkg-1.tar.gz" if kind == "sdists" else "in.tar"
    with tarfile.open(name, "w:gz" if kind == "sdists" else "w") as archive:
        for member, data in files.items():
            info = tarfile.TarInfo(f"pkg-1/{member}" if kind == "sdists" else member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return "in" if kind == "sdists" else name


OF_FILES = ["files", "git", "zip", "wheels", "tar", "sdists"]
OLD = "# coding: cp1252\r\nQUOTE = '\u201cx\u201d'\r\n"


@pytest.mark.parametrize("kind", OF_FILES)
def test_every_reader_of_files_follows_the_cookie_of_python_files_only(kind):
    files = {"a.py": OLD, "b.PYI": OLD, "c.pyw": OLD, "d.txt": OLD}
    path = put(kind, {name: text.encode("cp1252") for name, text in files.items()})
    documents, refused = ingest(kind, path, glob="**")
    assert {d.path: d.text for d in documents} == dict.fromkeys(["a.py", "b.PYI", "c.pyw"], OLD)
    assert [(item.path, item.line) for item in refused] == [("d.txt", 2)]


OID = "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
SPEC = "version https://git-lfs.github.com/spec/v1"
POINTERS = [
    f"{SPEC}\n{OID}\nsize 12345\n",
    f"{SPEC}\r\n{OID}\r\nsize 0\r\n",
    f"{SPEC}\n{OID}\nsize 12345",
    f"{SPEC}\n\n{OID}\nsize 12345\n\n",
    f"{SPEC}\next-0-case {OID[4:]}\next-1-rot {OID[4:]}\n{OID}\nsize 12345\n",
    f"version https://git-lfs.github.com/spec/v2\n{OID}\nsize 1\nx-later yes\n",
    f"version http://git-media.io/v/2\n{OID}\nsize 12345\n",
    f"version https://hawser.github.com/spec/v1\n{OID}\nsize 12345\n",
    "/annex/objects/SHA256E-s31--4d7a214614ab2935c943f9e0ff69d22e.py\n",
]
CONTENT = [
    f"{SPEC}\n",
    f"{SPEC}\n{OID}\n",
    f"{SPEC}\nsize 12345\n{OID}\n",
    f"{SPEC}\n{OID}\nsize many\n",
    f"{SPEC}\n{OID}\nsize 1\nprint('more')\n",
    f"{OID}\nsize 1\n{SPEC}\n",
    f"A pointer:\n\n{SPEC}\n{OID}\nsize 12345\n",
    f"{SPEC}\n{OID}\nsize 12345\n# {'x' * 1024}\n",
    "version = 'https://git-lfs.github.com/spec/v1'\nsize = 3\n",
    f"version https://git-lfs.example.com/spec/v1\n{OID}\nsize 1\n",
    "/annex/objects/ holds what git-annex keeps\n",
]


def test_pointers_differ_from_text_that_only_quotes_one():
    assert [text for text in POINTERS if missing_content(text.encode()) is None] == []
    assert [text for text in CONTENT if missing_content(text.encode()) is not None] == []
    assert missing_content(b"version https://git-lfs.github.com/spec/v1\n\xff") is None


@pytest.mark.parametrize("kind", OF_FILES)
def test_a_pointer_in_any_source_of_files_is_refused_as_missing_content(kind):
    endings = ["py", "csv", "ipynb"] * 3
    names = {f"p{n}.{end}": text for n, (text, end) in enumerate(zip(POINTERS, endings, strict=True))}
    others = {f"c{n}.md": text for n, text in enumerate(CONTENT)}
    path = put(kind, {name: text.encode() for name, text in (names | others).items()})
    documents, refused = ingest(kind, path, glob="**", max_bytes=5000)
    assert {d.path: d.text for d in documents} == others
    assert {item.path for item in refused} == set(names)
    assert not any(item.bad for item in refused) and all("the content is missing" in item.reason for item in refused)
    assert all(item.place.endswith(item.path) and item.place != item.path for item in refused)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("jsonl", "in.jsonl"), ("jsonl", "in.jsonl.gz"), ("csv", "in.csv"), ("tsv", "in.tsv.zst"), ("parquet", "in.parquet"),
     ("zip", "in.zip"), ("tar", "in.tar"), ("tar", "in.tgz"), ("wheels", "in/pkg-1-py3-none-any.whl"),
     ("sdists", "in/pkg-1.tar.gz"), ("sdists", "in/pkg-1.zip"), ("datasets", "in/data-00000-of-00001.arrow")],
)  # fmt: skip
def test_a_source_file_that_is_a_pointer_is_refused_with_its_path_and_what_to_do(kind, name):
    write(name, POINTERS[0])
    if kind == "datasets":
        write("in/state.json", json.dumps({"_data_files": [{"filename": Path(name).name}]}))
    documents, refused = ingest(kind, "in" if name.startswith("in/") else name)
    assert documents == []
    item = refused[0]
    assert (item.path, item.bad) == (name, True)
    assert item.reason == "a Git LFS pointer, the content is missing; `git lfs pull` fetches it"
