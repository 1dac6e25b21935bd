"""The library leaves out of a hash what DVC leaves out, for any `.dvcignore` files and any layout of a folder."""

import os
import re
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.tree import scan

NAMES = (
    "a",
    "b",
    "ab",
    "a.log",
    ".DS_Store",
    ".git",
    ".hg",
    "#x",
    "!x",
    "x y",
    "ä",
    "[a]",
    "a\\b",
    "raw",
    "t\tn\nl",
    ".x",
)
SEGMENTS = (
    "a", "b", "*", "**", "?", "[ab]", "[!a]", "[a-", "[b-a]", "a*", "*.log", ".*", r"\#x", r"\!x", "x y", "ä", "raw", "data", "*b",
    r"\[a]", r"a\b", "***", "",
)  # fmt: skip
PATTERN = st.builds(
    lambda sign, top, parts, end: f"{sign}{top}{'/'.join(parts)}{end}",
    st.sampled_from(("", "", "", "!", "#", " ")),
    st.sampled_from(("", "", "/", "**/")),
    st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3),
    st.sampled_from(("", "", "/", "/**", "/*", " ", "\\ ")),
)
LINES = st.lists(PATTERN, max_size=5)
FILES = st.sets(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), min_size=1, max_size=12)


def dvc_says(top, inner="data/raw"):
    """(files, hash) of a folder by DVC itself, or the error with which it stops."""
    from dvc.fs import LocalFileSystem
    from dvc.ignore import DvcIgnoreFilter
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.memory import MemoryFileSystem

    files = LocalFileSystem()
    folder = f"{top}/{inner}"
    try:
        ignore = DvcIgnoreFilter(files, top)
        names = {os.path.relpath(name, folder) for name in ignore.find(files, folder)}
        store = HashFileDB(MemoryFileSystem(), "memory://test")
        tree = build(store, folder, files, "md5", dry_run=True, ignore=ignore)[2]
    except (ValueError, re.error) as error:
        return type(error)
    return names, tree.hash_info.value


def we_say(inner="data/raw"):
    return {entry.name for entry in scan(Path(inner))}, hash_path(Path(inner)).md5


def fill(files, **ignores):
    """A folder for each name that another one goes on, a file for the others."""
    for name in sorted(files, key=len, reverse=True):
        path = Path("data/raw", name)
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    for place, lines in ignores.items():
        Path({"top": ".dvcignore", "data": "data/.dvcignore"}[place]).write_text("".join(f"{line}\n" for line in lines))


@settings(max_examples=200)
@example({"a", "b/a", "ab/a.log"}, ["*.log", "!a.log"], ["raw/b/"])
@example({".git", "a/.git", "b/.hg/a", "ab/.git/b"}, ["!.git"], ["!**/.git"])
@example({"a/b/a", "a/ab"}, ["/data/raw/a/*", "!/data/raw/a/ab"], ["/raw/**/b/"])
@example({"a"}, ["/data"], [])
@example({"a", "b"}, ["data/raw/"], ["!raw"])
@example({"a"}, ["!"], [])
@example({"a"}, [], ["a", "!"])
@example({"a", "b/a"}, ["b", "/"], ["/", "[b-a]", "!/"])
@given(FILES, LINES, LINES)
def test_dvc_and_we_leave_out_the_same_files(files, top, data):
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        fill(files, top=top, data=data)
        expected = dvc_says(os.path.realpath(folder))
        if isinstance(expected, type):
            with pytest.raises(UserError, match=r"\.dvcignore:\d+: .* is not a valid pattern, and DVC fails on it"):
                we_say()
        else:
            assert we_say() == expected


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path


def test_an_ignored_file_of_the_desktop_changes_no_hash(here):
    fill({"a", "b/a"}, top=[".DS_Store", ".ipynb_checkpoints/", "*.swp"])
    before = hash_path(Path("data/raw"))
    for name in (".DS_Store", "b/.DS_Store", "b/.ipynb_checkpoints/a-checkpoint.ipynb", "b/.a.swp"):
        Path("data/raw", name).parent.mkdir(exist_ok=True)
        Path("data/raw", name).write_text("noise")
    assert hash_path(Path("data/raw")) == before
    assert before.md5 == dvc_says(str(here))[1]


LEFTOVERS = (
    ".io.py.swp", ".io.py.swo", "io.py~", "#io.py#", "io.py.orig", "io.py.rej", "io.py.bak", ".DS_Store", "._io.py",
    "io.pyc", "__pycache__/io.cpython-311.pyc", ".ipynb_checkpoints/io-checkpoint.py", "Thumbs.db", "desktop.ini",
)  # fmt: skip


def test_what_editors_and_systems_leave_in_the_library_changes_no_hash_of_it(here, repository):
    """By the repository's own .dvcignore, for DVC and for us; a document of the same name counts."""
    shutil.copyfile(repository / ".dvcignore", ".dvcignore")
    code = Path("src/codex_ml/core")
    for folder in (code, code / "deep/er", Path("data/raw")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "io.py").write_text("x = 1\n")
    before = we_say(code)
    for folder in (code, code / "deep/er"):
        for name in LEFTOVERS:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("noise")
        (folder / ".#io.py").symlink_to("user@host.1234:5678")  # Emacs locks a file by a link that leads nowhere
    assert we_say(code) == before == dvc_says(str(here), code)
    assert before[0] == {"io.py", "deep/er/io.py"}
    (code / "new.py").write_text("y = 2\n")
    assert we_say(code) == dvc_says(str(here), code) != before
    Path("data/raw/notes.orig").write_text("a document")
    assert we_say() == dvc_says(str(here))
    assert "notes.orig" in we_say()[0]


def test_a_dvcignore_that_another_one_leaves_out_does_not_count(here):
    fill({"a", "b"}, top=["/data/.dvcignore"], data=["a"])
    assert we_say() == dvc_says(str(here))
    assert {"a", "b"} == we_say()[0]


def test_a_dvcignore_that_dvc_cannot_read_is_named(here):
    Path(".dvcignore").write_bytes(b"a\n\xff\n")
    assert dvc_says(str(here)) is UnicodeDecodeError
    with pytest.raises(
        UserError, match=r"^\.dvcignore is not UTF-8 \(byte 2\), so DVC cannot read it; save it as UTF-8$"
    ):
        hash_path(Path("data/raw"))


def test_folders_outside_the_repository_have_no_rules(here, monkeypatch):
    fill({"a"}, top=["a"])
    monkeypatch.chdir(here / "data")
    assert [entry.name for entry in scan(here / "data/raw")] == ["a"]
    Path("other").mkdir()
    monkeypatch.chdir(here / "data/other")
    assert [entry.name for entry in scan(here / "data/raw")] == ["a"]
    assert [entry.name for entry in scan(Path("../raw"))] == ["a"]


def test_what_no_loader_of_a_base_model_reads_is_in_no_hash(tmp_path, monkeypatch):
    """With the rules of this repository, and for DVC too. A file of the same name elsewhere is data."""
    shutil.copy(Path(__file__).parents[2] / ".dvcignore", tmp_path)
    monkeypatch.chdir(tmp_path)
    unread = ("README.md", ".gitignore", "mine/README.md", "mine/.gitattributes", "mine/.cache/huggingface/x.metadata")
    read = ("mine/LICENSE", "mine/chat_template.jinja", "mine/config.json", "mine/tokenizer.model", "mine.gguf")
    for name in unread + read:
        for folder in ("models/base", "data/raw"):
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
    assert sorted(entry.name for entry in scan(Path("models/base"))) == sorted(read)
    assert len(list(scan(Path("data/raw")))) == len(unread + read)
    names, digest = dvc_says(str(tmp_path), "models/base")
    assert sorted(names) == sorted(read)
    assert hash_path(Path("models/base")).md5 == digest
    for name in read:
        Path("models/base", name).unlink()
    assert dvc_says(str(tmp_path), "models/base") == (set(), hash_path(Path("models/base")).md5)
