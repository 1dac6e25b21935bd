"""Every chosen file of a folder becomes a document with its name and its exact content; nothing outside is read."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, derived_id
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import files, source_bytes

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, tasks, write


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()


def names(**settings):
    """Names of the documents."""
    return [document.path for document in ingest("files", **settings)[0]]


def refusals(**settings):
    return {item.path: (item.line, item.reason, item.bad) for item in ingest("files", **settings)[1]}


def one(data, name="a.py", **settings):
    """The document of one file, or its refusal."""
    write(f"in/{name}", data)
    (item,) = [item for items in ingest("files", glob="**/*", **settings) for item in items]
    return item


# --- the document


def test_a_file_is_a_document_byte_for_byte():
    text = "x = 'é'\r\n\ty = 1 \n\n"
    assert one(text, "pkg/a.py") == Document(
        source="in", path="pkg/a.py", id=derived_id("in", "pkg/a.py", text), group="", licence="unknown",
        language="python", text=text, place="in/pkg/a.py",
    )  # fmt: skip


def test_files_come_in_the_order_of_the_bytes_of_their_names():
    for name in ("b.py", "a/z.py", "a.py", "B.py", "é.py", "a-b.py", "10.py", "9.py"):
        write(f"in/{name}", "x\n")
    assert names() == ["10.py", "9.py", "B.py", "a/z.py", "a-b.py", "a.py", "b.py", "é.py"]


def test_a_source_may_have_a_name_and_one_file():
    write("in/sub/a.py", "x\n")
    ((document,), refused) = ingest("files", "in/sub/a.py", name="mine", licence="MIT")
    assert (document.source, document.path, document.licence, document.place) == ("mine", "a.py", "MIT", "in/sub/a.py")
    assert refused == []


def test_a_file_as_a_source_needs_no_glob():
    write("in/notes.txt", "x\n")
    assert [d.path for d in ingest("files", "in/notes.txt")[0]] == ["notes.txt"]


def test_a_link_as_a_source_keeps_its_own_name():
    write("cache/3f/2a77", "x = 1\n")
    Path("in/a.py").symlink_to("../cache/3f/2a77")
    ((document,), refused) = ingest("files", "in/a.py")
    assert (document.path, document.language, document.text) == ("a.py", "python", "x = 1\n") and refused == []


def test_a_folder_that_is_a_link_is_a_source():
    write("elsewhere/a.py", "x\n")
    Path("link").symlink_to("elsewhere")
    assert [d.path for d in ingest("files", "link")[0]] == ["a.py"]


def test_a_missing_folder_is_reported():
    with pytest.raises(
        UserError, match=r"^ingest\.sources: gone does not exist; put the data there or remove the source$"
    ):
        ingest("files", "gone")


def test_a_folder_without_a_match_is_reported_and_is_not_bad():
    write("in/a.txt", "x")
    documents, (item,) = ingest("files")
    assert documents == [] and (item.reason, item.bad) == ("has no file that matches **/*.py", False)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"), ("A.PY", "python"), ("a.pyi", "python"), ("x.tar.js", "javascript"), ("a.rs", "rust"),
        ("Makefile", "makefile"), ("Dockerfile", "dockerfile"), ("CMakeLists.txt", "cmake"), ("a.h", "c"),
        ("noending", "other"), (".py", "other"), ("a.unheard", "other"), ("d.py/x", "other"), ("a.TXT", "text"),
    ],
)  # fmt: skip
def test_the_name_says_the_language(name, language):
    assert one("x", name).language == language


# --- which files


TREE = ("a.py", "b.txt", "src/a.py", "src/deep/er/c.py", "src/x.js", "tests/t.py", "docs/conf.py", "tests.py/u.js")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, ["a.py", "docs/conf.py", "src/a.py", "src/deep/er/c.py", "tests/t.py"]),
        ({"glob": "*.py"}, ["a.py"]),
        ({"glob": "src/*.py"}, ["src/a.py"]),
        ({"glob": "src/**/*.py"}, ["src/a.py", "src/deep/er/c.py"]),
        ({"glob": "src/**"}, ["src/a.py", "src/deep/er/c.py", "src/x.js"]),
        ({"glob": "**/a.*"}, ["a.py", "src/a.py"]),
        ({"glob": "**/[ab].*"}, ["a.py", "b.txt", "src/a.py"]),
        ({"glob": "**/?.js"}, ["src/x.js", "tests.py/u.js"]),
        ({"glob": "*.txt", "include": ("**/*.js",)}, ["b.txt", "src/x.js", "tests.py/u.js"]),
        ({"exclude": ("tests", "docs/**", "tests.py")}, ["a.py", "src/a.py", "src/deep/er/c.py"]),
        ({"exclude": ("**/a.py", "tests*")}, ["docs/conf.py", "src/deep/er/c.py"]),
        ({"glob": "*.txt", "include": ("**/*.py",), "exclude": ("**",)}, []),
    ],
)  # fmt: skip
def test_glob_and_include_without_exclude(settings, wanted):
    for name in TREE:
        write(f"in/{name}", "x\n")
    assert names(**settings) == wanted


@pytest.mark.parametrize("settings", [{"glob": "a\\"}, {"include": ("!\\",)}, {"exclude": ("\\",)}])
def test_an_invalid_glob_is_reported(settings):
    write("in/a.py", "x\n")
    with pytest.raises(UserError, match=r"^ingest\.sources: "):
        names(**settings)


GITIGNORES = [
    ("", {}, TREE),
    ("*.py\n!a.py\n", {}, ["a.py", "b.txt", "src/a.py", "src/x.js"]),
    ("/a.py\n", {}, [name for name in TREE if name != "a.py"]),
    ("# a comment\n\nsrc/\n", {}, ["a.py", "b.txt", "docs/conf.py", "tests/t.py", "tests.py/u.js"]),
    ("src/\n!src/a.py\n", {}, ["a.py", "b.txt", "docs/conf.py", "tests/t.py", "tests.py/u.js"]),
    ("src/*\n!src/a.py\n", {}, ["a.py", "b.txt", "docs/conf.py", "src/a.py", "tests/t.py", "tests.py/u.js"]),
    ("deep/\n!/src\n", {}, [name for name in TREE if "deep" not in name]),
    ("src/**/c.py\r\n", {}, [name for name in TREE if "c.py" not in name]),
    ("*\n", {"src": "!*\n"}, []),  # a folder that is left out is not entered
    ("*.py\n", {"src": "!*.py\n", "src/deep": "c.py\n"}, ["b.txt", "src/a.py", "src/x.js"]),
    ("", {"src": "/a.py\n"}, [name for name in TREE if name != "src/a.py"]),
    ("", {"src": "/deep\n", "src/deep": "!*\n"}, [name for name in TREE if "deep" not in name]),
    ("!\na\\\n/b.txt\n/\n", {}, [name for name in TREE if name != "b.txt"]),  # Git takes no notice of a bad line
    ("src/**\n!a.py\n", {}, ["a.py", "b.txt", "docs/conf.py", "src/a.py", "tests/t.py", "tests.py/u.js"]),
    ("/*\n!*/\n", {}, [name for name in TREE if "/" in name]),
    ("src/**\n!src/**/\n!src/**/c.py\n", {}, [name for name in TREE if name not in ("src/a.py", "src/x.js")]),
    ("\\!x\n\\#x\nb.txt   \n", {}, [name for name in TREE if name != "b.txt"]),
]


@pytest.mark.parametrize(("top", "nested", "wanted"), GITIGNORES)
def test_a_gitignore_means_what_it_means_to_git(top, nested, wanted):
    for name in TREE:
        write(f"in/{name}", "x\n")
    for folder, text in {"": top, **nested}.items():
        write(f"in/{folder}/.gitignore", text)
    assert sorted(names(glob="**", exclude=("**/.gitignore",))) == sorted(wanted)
    assert len(names(glob="**", exclude=("**/.gitignore",), gitignore=False)) == len(TREE)
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", "in"], check=True)
        command = ["git", "-C", "in", "ls-files", "-o", "-z", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.split("\0")[:-1]
        assert sorted(name for name in listed if not name.endswith(".gitignore")) == sorted(wanted)
        assert sorted(names(glob="**", exclude=("**/.gitignore",))) == sorted(wanted)  # .git is no part of it


def test_a_byte_order_mark_before_a_gitignore_is_not_part_of_a_pattern():
    write("in/.gitignore", "\ufeff*.log\n")
    write("in/a.log", "x")
    write("in/a.py", "x")
    assert names(glob="**", exclude=(".gitignore",)) == ["a.py"]


def test_what_git_keeps_of_itself_is_not_read():
    for name in (".git/hooks/a.py", "sub/.git/b.py", "c.py"):
        write(f"in/{name}", "x\n")
    write("in/sub/module/.git", "gitdir: ../../.git\n")
    assert names(glob="**") == ["c.py"]
    assert names(glob="**", gitignore=False) == ["c.py"]


def test_hidden_files_are_files():
    write("in/.hidden/.a.py", "x\n")
    assert names() == [".hidden/.a.py"]


# --- what is no file


def test_links_are_not_followed():
    write("secret.py", "secret")
    write("in/real.py", "x\n")
    write("other/b.py", "x\n")
    Path("in/a.py").symlink_to("../secret.py")
    Path("in/b.py").symlink_to("real.py")
    Path("in/c.py").symlink_to("nowhere")
    Path("in/d.py").symlink_to("/dev/zero")
    Path("in/e.py").symlink_to("../other")
    Path("in/loop.py").symlink_to(".")
    assert names() == ["real.py"]
    why = (None, "not a regular file, or not readable", False)
    assert refusals() == dict.fromkeys(("a.py", "b.py", "c.py", "d.py", "e.py", "loop.py"), why)


def test_a_fifo_and_a_socket_do_not_block():
    os.mkfifo("in/fifo.py")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("in/socket.py")
        found = refusals()
    assert found == {
        "fifo.py": (None, "not a regular file", False),
        "socket.py": (None, "not a regular file, or not readable", False),
    }


def test_a_file_that_is_gone_when_it_is_read_is_refused():
    write("in/a.py", "x\n")
    (task,) = tasks("files")
    Path("in/a.py").unlink()
    assert [(item.path, item.reason) for item in task.read()] == [("a.py", "not a regular file, or not readable")]


def test_a_file_that_became_a_link_is_not_followed():
    write("in/a.py", "x\n")
    write("secret.py", "secret\n")
    (task,) = tasks("files")
    Path("in/a.py").unlink()
    Path("in/a.py").symlink_to("../secret.py")
    assert [item.reason for item in task.read()] == ["not a regular file, or not readable"]


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_a_file_that_changes_while_it_is_read_ends_the_run(monkeypatch, change):
    path = write("in/a.py", "x = 1\n")
    (task,) = tasks("files")
    calls = []
    real = os.fstat

    def fstat(handle):
        result = real(handle)
        if not calls:
            if change == "touched":
                os.utime(path, ns=(0, result.st_mtime_ns + 1))
            else:
                path.write_bytes(b"x = 1\ny = 2\n" if change == "longer" else b"x")
        calls.append(handle)
        return result

    monkeypatch.setattr(files.os, "fstat", fstat)
    with pytest.raises(UserError, match=r"^in/a\.py changed while it was read; stop what writes to it and run again$"):
        list(task.read())


def test_a_file_that_changes_after_the_bytes_were_read_ends_the_run(monkeypatch):
    path = write("in/a.py", "x = 1\n")
    (task,) = tasks("files")
    calls = []
    real = os.fstat

    def fstat(handle):
        calls.append(handle)
        if len(calls) == 2:
            path.write_bytes(b"x = 2\ny\n")
        return real(handle)

    monkeypatch.setattr(files.os, "fstat", fstat)
    with pytest.raises(UserError, match=r"changed while it was read"):
        list(task.read())


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "new\nline.py", "fold\ner/a.py", "a\r.py", "tab\t.py", "quote'\".py", "back\\slash.py", "esc\x1b[31m.py", " a.py",
        "-rf.py", "*.py", "[a].py", "{a}.py", "a:12", "é\u2028\u202e.py", "\U0001f600.py", "a" * 250 + ".py", "...py", "#.py",
        "!a.py", "con.py", "a/-/~/$HOME/%s.py",
    ],
)  # fmt: skip
def test_any_name_is_kept(name):
    document = one("x\n", name)
    assert document.path == name and document.place == f"in/{name}"


@pytest.mark.parametrize("raw", [b"caf\xe9.py", b"\xff/\xfe.py", b"\xed\xa0\x80.py"])
def test_a_name_that_is_not_utf8_is_written_with_escapes(raw):
    write(f"in/{os.fsdecode(raw)}", b"x\n")
    (document,), refused = ingest("files")
    assert document.path == raw.decode("ascii", "backslashreplace") and document.text == "x\n" and refused == []
    document.path.encode("utf-8")


def test_composed_and_decomposed_names_are_two_files():
    twins = [unicodedata.normalize(form, "é.py") for form in ("NFC", "NFD")]
    for number, name in enumerate(twins):
        write(f"in/{name}", f"{number}\n")
    found = {d.path: d.text for d in ingest("files")[0]}
    assert found == {twins[0]: "0\n", twins[1]: "1\n"}


def test_folders_may_be_deep():
    folder = Path("in", *["d"] * 900)
    handle = os.open("in", os.O_RDONLY)
    try:
        for _ in range(900):
            os.mkdir("d", dir_fd=handle)
            deeper = os.open("d", os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle = deeper
        with os.fdopen(os.open("a.py", os.O_WRONLY | os.O_CREAT, dir_fd=handle), "wb") as file:
            file.write(b"x\n")
    finally:
        os.close(handle)
    assert [f"in/{name}" for name in names()] == [f"{folder}/a.py"]
    subprocess.run(["rm", "-rf", "in"], check=True)  # shutil recurses


# --- content


@pytest.mark.parametrize(
    "data", [b"", b" \t\r\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", "\u2003\u3000\n".encode()]
)
def test_a_file_without_text_is_reported_and_is_not_bad(data):
    item = one(data)
    assert (item.path, item.line, item.reason, item.bad) == ("a.py", None, "empty", False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_part_of_the_text(encoding):
    text = "α = 'βeta \U0001f600'\n\ufeffmark\n"
    assert one(text.encode(encoding)).text == text


def test_both_orders_of_utf_16_are_read():
    assert one(b"\xff\xfe" + "a\nβ\n".encode("utf-16-le")).text == "a\nβ\n"
    assert one(b"\xfe\xff" + "a\nβ\n".encode("utf-16-be")).text == "a\nβ\n"


NUL = "NUL bytes, not UTF-8 text (UTF-16 without a byte order mark, or binary)"


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"caf\xe9\n", 1, "byte 0xE9 at offset 3 is not UTF-8"),
        (b"a\nb\ncaf\xe9\n", 3, "byte 0xE9 at offset 7 is not UTF-8"),
        (b"a\r\nb\x92", 2, "byte 0x92 at offset 4 is not UTF-8"),
        (b"a\xe2\x82", 1, "byte 0xE2 at offset 1 is not UTF-8"),
        (b"\xed\xa0\x80", 1, "byte 0xED at offset 0 is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00\x00\xff\xfe\x80", 1, NUL),
        ("aé\n".encode("utf-16-le"), 1, NUL),
        ("aé\n".encode("utf-16-be"), 1, NUL),
        ("a\nb\n".encode("utf-16-le"), 1, "NUL bytes, not text"),
        (b"a\nb\nc\0", 3, "NUL bytes, not text"),
        (b"\xff\xfea\0\0\xd8", 1, "begins as UTF-16, but is none at byte 4"),
        (b"\xff\xfea", 1, "begins as UTF-16, but is none at byte 2"),
        ("ab\n".encode("utf-32"), 1, "NUL bytes, not text"),
    ],
)
def test_bytes_that_are_not_text_are_named_with_line_and_byte(data, line, reason):
    item = one(data)
    assert (item.path, item.line, item.reason, item.bad) == ("a.py", line, reason, True)


def test_a_file_is_at_most_so_many_bytes():
    write("in/a.py", "é" * 500)
    write("in/b.py", "é" * 500 + "b")
    with Path("in/c.py").open("wb") as file:
        file.truncate(1 << 40)  # a hole of a tebibyte
    assert names() == ["a.py"]
    assert refusals() == dict.fromkeys(("b.py", "c.py"), (None, "longer than 1000 bytes", False))


def test_the_bytes_of_the_tasks_are_those_of_the_files():
    for number in range(300):
        write(f"in/{number:03}.py", "x" * 100_000)
    found = list(tasks("files", max_bytes=1_000_000))
    assert len(found) > 1 and sum(task.bytes for task in found) == 30_000_000
    assert source_bytes(Source(kind="files", path="in")) == 30_000_000
    assert len([item for task in found for item in task.read()]) == 300


# --- licences and groups

HEADER = "# SPDX-License-Identifier: {}\n"


@pytest.mark.parametrize(
    ("own", "source", "licence"),
    [
        (None, "unknown", "unknown"),
        (None, "MIT", "MIT"),
        ("MIT", "unknown", "MIT"),
        ("MIT", "MIT", "MIT"),
        ("Apache-2.0", "MIT", "(MIT) AND (Apache-2.0)"),
        ("GPL-3.0-only OR MIT", "Apache-2.0", "(Apache-2.0) AND (GPL-3.0-only OR MIT)"),
        ("no licence of SPDX", "MIT", "unknown"),
    ],
)
def test_a_header_of_a_file_counts_beside_the_licence_of_the_source(own, source, licence):
    text = (HEADER.format(own) if own else "") + "x = 1\n"
    assert one(text, licence=source).licence == licence


@pytest.mark.parametrize(
    ("group", "wanted"),
    [("none", ["", "", ""]), ("source", ["in", "in", "in"]), ("folder", ["in/a", "in/a", ""])],
)
def test_what_stays_in_one_split(group, wanted):
    for name in ("a/b/c.py", "a/x.py", "top.py"):
        write(f"in/{name}", f"{name}\n")
    assert [d.group for d in ingest("files", group=group)[0]] == wanted


def test_a_folder_is_a_group_of_its_own_source():
    for name in ("in/a/x.py", "other/a/x.py"):
        write(name, "x\n")
    groups = {ingest("files", path, group="folder")[0][0].group for path in ("in", "other")}
    assert groups == {"in/a", "other/a"}


# --- notebooks


def notebook(*sources):
    cells = [{"cell_type": "code", "source": source, "outputs": [], "metadata": {}} for source in sources]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


@pytest.mark.parametrize("name", ["a.ipynb", "A.IPYNB"])
def test_a_notebook_is_its_code(name):
    document = one(notebook("import os", ["%magic\n", "x = 1"]), name)
    assert (document.text, document.language) == ("import os\n\n%magic\nx = 1", "python")


def test_a_notebook_without_code_is_empty():
    assert (one(notebook(" "), "a.ipynb").reason, one(notebook(), "a.ipynb").bad) == ("empty", False)


# --- a glob in the path


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("in/*.py", {"a.py"}),
        ("in/**/b.py", {"s/b.py", "t/u/b.py"}),
        ("in/?/*", {"s/b.py", "s/x.js"}),
        ("*/s/*.js", {"in/s/x.js"}),
    ],
)
def test_a_path_may_be_a_glob(path, wanted):
    for name in ("a.py", "s/b.py", "s/x.js", "t/u/b.py"):
        write(f"in/{name}", "x\n")
    documents, refused = ingest("files", path)
    assert {d.path for d in documents} == wanted and refused == []
    assert {d.source for d in documents} == {path}


def test_a_glob_in_the_path_follows_no_link_and_obeys_exclude():
    write("secret.py", "secret\n")
    for name in ("a.py", "b.py", ".git/c.py"):
        write(f"in/{name}", "x\n")
    Path("in/link.py").symlink_to("../secret.py")
    os.mkfifo("in/fifo.py")
    documents, refused = ingest("files", "in/**/*.py", exclude=("b.py",))
    assert [d.path for d in documents] == ["a.py"]
    assert [item.path for item in refused] == ["fifo.py", "link.py"]


@pytest.mark.parametrize("kind", ["files", "jsonl", "csv", "parquet", "zip", "tar"])
def test_a_source_that_is_a_fifo_or_a_device_is_reported_and_never_opened(kind):
    os.mkfifo("fifo.jsonl")
    Path("zero.jsonl").symlink_to("/dev/zero")
    for path in ("fifo.jsonl", "zero.jsonl"):
        with pytest.raises(UserError, match=f"^ingest.sources: {path} is neither a file nor a folder"):
            ingest(kind, path)
    if kind != "files":
        documents, refused = ingest(kind, "*.jsonl")
        assert documents == [] and [item.reason for item in refused] == ["not a regular file"] * 2


def test_a_file_that_was_replaced_while_it_was_read_ends_the_run(monkeypatch):
    path = write("in/a.py", "x = 1\n")
    (task,) = tasks("files")
    real = os.fstat

    def fstat(handle):
        write("new", "x = 1\n").rename(path)
        return real(handle)

    monkeypatch.setattr(files.os, "fstat", fstat)
    with pytest.raises(UserError, match=r"^in/a\.py changed while it was read"):
        list(task.read())


def test_many_small_files_are_many_tasks(monkeypatch):
    monkeypatch.setattr(files, "BATCH_FILES", 3)
    for number in range(7):
        write(f"in/{number}.py", "")
    assert [len(task.names) for task in tasks("files")] == [3, 3, 1]
