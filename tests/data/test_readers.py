"""What a source holds becomes documents, character for character, or is named with a reason; nothing touches the disk."""

import os
import random
import zipfile
from pathlib import Path

import pytest

from codex_ml.config import Source
from codex_ml.data.documents import Document
from codex_ml.data.licences import is_allowed
from codex_ml.data.readers import JSONL_LINE_LIMIT, Refused, read_source
from codex_ml.errors import UserError

METADATA = "Metadata-Version: 2.1\nName: pkg\nLicense-Expression: MIT\n\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path


def read(kind, path="in", *, max_bytes=1000, **settings):
    return list(read_source(Source(kind=kind, path=path, **settings), max_bytes=max_bytes))


def texts(items):
    return {item.path: item.text for item in items if isinstance(item, Document)}


def refusals(items):
    return {item.path: item.reason for item in items if isinstance(item, Refused)}


def wheel(members, name="in/My_Pkg-1.0-py3-none-any.whl", metadata=METADATA, **options):
    with zipfile.ZipFile(name, "w", **options) as archive:
        if metadata is not None:
            archive.writestr("My_Pkg-1.0.dist-info/METADATA", metadata)
        for member, data in members:
            archive.writestr(member, data)
    return Path(name)


def test_a_source_that_does_not_exist_is_told():
    with pytest.raises(
        UserError, match=r"^ingest\.sources: gone does not exist; put the data there or remove the source$"
    ):
        read("files", "gone")


# --- wheels


def test_the_members_of_a_wheel_are_documents_in_order_of_their_names():
    wheel([("b.py", "b = 1\n"), ("a/c.py", b"\xef\xbb\xbfc = 'bom'\r\n"), ("data.txt", "no python"), ("a/", "")])
    first, second = read("wheels")
    assert (first.source, first.path, first.text, first.licence) == ("my-pkg==1.0", "a/c.py", "c = 'bom'\r\n", "MIT")
    assert (second.path, second.text, second.language) == ("b.py", "b = 1\n", "python")


def test_names_of_an_archive_never_become_paths(here, tree):
    link = zipfile.ZipInfo("link.py")
    link.external_attr = 0o120777 << 16
    members = [
        ("../up.py", "x = 1"),
        ("/abs.py", "x = 2"),
        ("a/../../b.py", "x = 3"),
        ("C:\\x.py", "x = 4"),
        (link, "/etc/hostname"),
    ]
    wheel(members)
    before = tree(here)
    found = texts(read("wheels"))
    assert found == {
        "../up.py": "x = 1",
        "/abs.py": "x = 2",
        "a/../../b.py": "x = 3",
        "C:\\x.py": "x = 4",
        "link.py": "/etc/hostname",
    }
    assert tree(here) == before


def test_too_large_empty_and_binary_members_are_refused_by_name():
    wheel(
        [
            ("big.py", "x" * 1001),
            ("fits.py", "x" * 1000),
            ("empty.py", " \n"),
            ("nul.py", "a\0b"),
            ("latin.py", b"a = '\xe9'"),
        ]
    )
    items = read("wheels")
    assert list(texts(items)) == ["fits.py"]
    assert refusals(items) == {
        "big.py": "longer than 1000 bytes", "empty.py": "empty", "nul.py": "binary (NUL)", "latin.py": "not UTF-8 (byte 5)",
    }  # fmt: skip


def test_a_zip_bomb_is_refused_by_its_size_alone():
    wheel([("bomb.py", b"\n" * 50_000_000)], compression=zipfile.ZIP_DEFLATED)
    assert refusals(read("wheels")) == {"bomb.py": "longer than 1000 bytes"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_damaged_wheel_is_told_by_name_or_reads_the_same(compression):
    dice = random.Random(1)
    file = wheel([(f"{i}.py", f"value_{i} = {dice.random()}\n" * 10) for i in range(3)], compression=compression)
    good, expected = file.read_bytes(), texts(read("wheels"))
    told = 0
    for position in range(0, len(good), 5):
        file.write_bytes(good[:position] + bytes([good[position] ^ dice.randrange(1, 256)]) + good[position + 1 :])
        try:
            found = texts(read("wheels"))
        except UserError as error:
            assert str(error).startswith("in/My_Pkg-1.0-py3-none-any.whl is not a whole wheel (")
            told += 1
        else:
            assert set(found.values()) <= set(expected.values())
    assert told > 20


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_wheel_that_was_cut_short_is_told(cut):
    file = wheel([("a.py", "a = 1\n" * 20)])
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(
        UserError, match=r"My_Pkg-1\.0-py3-none-any\.whl is not a whole wheel .* delete it and run `dvc repro` again$"
    ):
        read("wheels")


def test_members_of_the_same_name_do_not_become_two_documents_of_one_id():
    with pytest.warns(UserWarning, match="Duplicate name"):
        wheel([("a.py", "first = 1\n"), ("a.py", "second = 2\n")])
    documents = [item for item in read("wheels") if isinstance(item, Document)]
    assert len({document.id for document in documents}) == len(documents)


def test_the_licence_of_a_source_stands_where_the_wheel_has_none():
    wheel([("a.py", "a = 1")], metadata=None)
    assert read("wheels", licence="ISC")[0].licence == "ISC"
    assert read("wheels")[0].licence == "unknown"


def test_the_licence_of_a_wheel_does_not_depend_on_the_longest_document():
    wheel([("a.py", "a = 1")], metadata=METADATA + "long description\n" * 100)
    assert read("wheels", max_bytes=100)[0].licence == "MIT"


def test_a_header_of_a_file_counts_beside_the_licence_of_the_package():
    header = "# SPDX-License-Identifier: {}\nx = 1\n"
    wheel(
        [
            ("a.py", header.format("MIT")),
            ("b.py", header.format("GPL-3.0-only")),
            ("c.py", header.format("Apache-2.0 OR GPL-2.0-only")),
        ]
    )
    found = {item.path: item.licence for item in read("wheels")}
    assert found == {
        "a.py": "MIT",
        "b.py": "(MIT) AND (GPL-3.0-only)",
        "c.py": "(MIT) AND (Apache-2.0 OR GPL-2.0-only)",
    }
    allowed = frozenset({"MIT", "Apache-2.0"})
    assert [is_allowed(found[name], allowed) for name in ("a.py", "b.py", "c.py")] == [True, False, True]
    wheel([("a.py", header.format("MIT"))], metadata=None)
    assert read("wheels")[0].licence == "MIT"


def test_a_header_that_cannot_be_read_never_makes_a_file_permissive():
    wheel([("a.py", "# SPDX-License-Identifier: LicenseRef-Internal-Only\nx = 1\n")])
    assert is_allowed(read("wheels")[0].licence, frozenset({"MIT"})) is not True


def test_every_header_of_a_file_counts():
    wheel([("a.py", "# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n")])
    assert is_allowed(read("wheels")[0].licence, frozenset({"MIT"})) is not True


def test_a_wheels_source_without_a_wheel_is_told():
    Path("in/a.py").write_text("a = 1")
    with pytest.raises(UserError, match=r"ingest\.sources: in "):
        read("wheels")


def test_a_wheels_source_that_is_no_folder_is_told():
    wheel([("a.py", "a = 1")])
    with pytest.raises(UserError, match="folder"):
        read("wheels", "in/My_Pkg-1.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("**/*.py", ["a.py", "d/b.py", "d/e/c.py"]),
        ("*.txt", ["t.txt"]),
        ("d/*.py", ["d/b.py"]),
        ("**/*", ["a.py", "d/b.py", "d/e/c.py", "t.txt"]),
    ],
)
def test_a_glob_means_the_same_in_a_wheel_and_in_a_folder(glob, names):
    members = [("a.py", "1"), ("d/b.py", "2"), ("d/e/c.py", "3"), ("t.txt", "4")]
    wheel(members)
    assert sorted(texts(read("wheels", glob=glob))) == names
    for name, data in members:
        file = Path("folder", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data)
    assert sorted(texts(read("files", "folder", glob=glob))) == names


# --- folders of files


def test_files_are_documents_with_their_line_ends_kept():
    Path("in/sub").mkdir()
    Path("in/crlf.py").write_bytes(b"a\r\nb\rc\n")
    Path("in/sub/bom.py").write_bytes(b"\xef\xbb\xbf# bom\n")
    Path("in/.git").mkdir()
    Path("in/.git/hook.py").write_text("x")
    items = read("files", licence="MIT")
    assert texts(items) == {"crlf.py": "a\r\nb\rc\n", "sub/bom.py": "# bom\n"}
    assert {(item.source, item.licence) for item in items} == {("in", "MIT")}


def test_links_and_pipes_are_refused_and_never_block(here):
    (here / "outside.py").write_text("outside = 1\n")
    (here / "outside").mkdir()
    (here / "outside/secret.py").write_text("secret = 1\n")
    Path("in/link.py").symlink_to(here / "outside.py")
    Path("in/dangling.py").symlink_to("nowhere")
    Path("in/folder.py").symlink_to(here / "outside")
    os.mkfifo("in/pipe.py")
    Path("in/ok.py").write_text("ok = 1\n")
    items = read("files")
    assert list(texts(items)) == ["ok.py"]
    assert refusals(items) == dict.fromkeys(["dangling.py", "folder.py", "link.py", "pipe.py"], "not a regular file")


def test_a_name_that_is_no_utf_8_can_be_written_down():
    for number, name in enumerate([b"in/\xff.py", b"in/big\xfe.py"]):
        Path(os.fsdecode(name)).write_text("x = 1\n" * (1 + 500 * number))
    items = read("files")
    assert list(texts(items)) == [r"\xff.py"]
    assert list(refusals(items)) == [r"big\xfe.py"]


def test_a_file_that_is_too_long_is_refused_without_reading_it():
    with Path("in/sparse.py").open("wb") as file:
        file.truncate(1 << 40)
    assert refusals(read("files")) == {"sparse.py": "longer than 1000 bytes"}


def test_the_language_is_told_by_the_extension():
    for name in ("a.PY", "b.md", "c.zig", "d"):
        Path("in", name).write_text("text")
    assert [item.language for item in read("files", glob="**/*")] == ["python", "markdown", "other", "other"]


def test_a_files_source_that_is_a_file_is_told():
    Path("in/a.py").write_text("x")
    with pytest.raises(UserError, match=r"in/a\.py is no folder; `kind: files` reads a folder$"):
        read("files", "in/a.py")


# --- JSON Lines


def jsonl(*lines, end=b"\n"):
    Path("in/a.jsonl").write_bytes(
        b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + end
    )
    return read("jsonl", "in/a.jsonl")


def test_only_lf_ends_a_line():
    items = jsonl(
        '{"text": "one\u2028two\u2029three\u0085four"}\r',
        r'{"text": "five\u2028\n\u000b"}',
        '{"text": "\u000b"}'.replace("\u000b", "last"),
        end=b"",
    )
    assert texts(items) == {"line 1": "one\u2028two\u2029three\u0085four", "line 2": "five\u2028\n\v", "line 3": "last"}


def test_blank_lines_are_nothing_but_count():
    items = jsonl("", '{"text": "a"}', "  \t", "\r", '{"text": "b"}', "")
    assert texts(items) == {"line 2": "a", "line 5": "b"}


def test_a_bom_is_dropped_at_the_start_of_the_file_only():
    items = jsonl('\ufeff{"text": "a"}', r'{"text": "\ufeffkept"}', '{"text": "in\ufeffside"}')
    assert texts(items) == {"line 1": "a", "line 2": "\ufeffkept", "line 3": "in\ufeffside"}


def test_licences_may_be_spelt_both_ways_and_fall_back_to_the_source():
    lines = [
        '{"text": "a", "licence": "MIT"}',
        '{"text": "b", "license": "ISC"}',
        '{"text": "c"}',
        '{"text": "d", "license": null}',
    ]
    Path("in/a.jsonl").write_text("\n".join(lines))
    assert [item.licence for item in read("jsonl", "in/a.jsonl", licence="0BSD")] == ["MIT", "ISC", "0BSD", "0BSD"]
    assert [item.language for item in read("jsonl", "in/a.jsonl")] == ["text"] * 4


def test_a_long_empty_or_binary_text_is_refused_by_its_line():
    items = jsonl('{"text": "' + "ä" * 501 + '"}', '{"text": ""}', r'{"text": "a\u0000b"}', '{"text": "ok"}')
    assert refusals(items) == {"line 1": "longer than 1000 bytes", "line 2": "empty", "line 3": "binary (NUL)"}
    assert texts(items) == {"line 4": "ok"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": NaN}', "not JSON: NaN is not JSON"),
        ('{"text": "a", "n": 1e999}', "not JSON: the number 1e999 is too large"),
        ('{"text": "a", "text": "b"}', "not JSON: the key 'text' stands twice"),
        ('{"text": "a\vb"}', "not JSON: Invalid control character"),
        ('{"text": "a"}{"text": "b"}', "not JSON: Extra data"),
        ("{'text': 'a'}", "not JSON: Expecting property name"),
        ('{"text": "a",}', "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ("\ufeff" + '{"text": "a"}', "not JSON: "),
        (b'{"text": "\x92"}', "not UTF-8 (byte 10 of the line)"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8 (byte 10 of the line)"),
        (r'{"text": "x\ud800"}', "a lone surrogate at character 1 is no text"),
        ('{"text": 5}', "an object with a text field is wanted"),
        ('{"text": null}', "an object with a text field is wanted"),
        ('{"content": "a"}', "an object with a text field is wanted"),
        ('["text"]', "an object with a text field is wanted"),
        ("null", "an object with a text field is wanted"),
        ('{"text": "a", "license": ["MIT"]}', "licence must be a text, found list"),
    ],
)
def test_a_line_that_is_no_record_is_told_with_its_number(line, message):
    with pytest.raises(UserError) as error:
        jsonl('{"text": "a\u2028b"}', "", line, '{"text": "after"}')
    assert str(error.value).startswith(f"in/a.jsonl:3: {message}")


def test_a_line_that_would_fill_the_memory_is_told(monkeypatch):
    from codex_ml.data import readers

    assert JSONL_LINE_LIMIT == 64 << 20
    monkeypatch.setattr(readers, "JSONL_LINE_LIMIT", 1 << 20)
    with pytest.raises(UserError, match=r"^in/a\.jsonl:2: the line is longer than 1 MiB$"):
        jsonl('{"text": "a"}', '{"text": "' + "x" * (1 << 20) + '"}')


def test_a_jsonl_source_that_is_a_folder_is_told():
    with pytest.raises(UserError, match=r"in is no file; `kind: jsonl` reads one JSON Lines file$"):
        read("jsonl", "in")
