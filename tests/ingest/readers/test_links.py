"""Every kind of source reads only what DVC hashes: DVC's own links as files, no other links, no ignored files."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest

RECORDS = [{"id": str(number), "text": f"document {number} of some words"} for number in range(3)]
LINES = "".join(f"{json.dumps(record)}\n" for record in RECORDS)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path(".dvc").mkdir()
    Path("in").mkdir()


def records(folder):
    (folder / "a.jsonl").write_text(LINES)
    (folder / "sub").mkdir()
    (folder / "sub/b.ndjson").write_text(LINES)


def packed(folder):
    import gzip

    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))


def table(separator):
    def make(folder):
        rows = "".join(f"{record['id']}{separator}{record['text']}\n" for record in RECORDS)
        (folder / f"a.{'csv' if separator == ',' else 'tsv'}").write_text(f"id{separator}text\n{rows}")

    return make


def parquet(folder):
    pq.write_table(pa.Table.from_pylist(RECORDS), folder / "a.parquet")


def dataset(folder):
    columns = pa.Table.from_pylist(RECORDS)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, columns.schema) as stream:
        stream.write_table(columns)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def code(folder):
    """With a .gitignore that is stored as all the rest, and a notebook."""
    cells = [{"cell_type": "code", "source": "N = 1", "metadata": {}, "outputs": [], "execution_count": None}]
    notebook = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    for name, text in {
        "a.py": "A = 1\n",
        "sub/b.py": "B = 1\n",
        "sub/build/c.py": "C = 1\n",
        "sub/.gitignore": "build/\n",
        "n.ipynb": notebook,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def zipped(name, inside):
    def make(folder):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(f"{inside}/a.py", "A = 1\n")
            if name.endswith(".whl"):
                archive.writestr(
                    "a-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a\nVersion: 1.0\nLicense: MIT\n"
                )

    return make


def tarred(name):
    def make(folder):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
            for member, data in {"a-1.0/a.py": b"A = 1\n", "a-1.0/PKG-INFO": b"Name: a\nVersion: 1.0\n"}.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return make


def git(*arguments, cwd):
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def repository(*, is_packed):
    def make(folder):
        work = Path("work")
        work.mkdir()
        (work / "a.py").write_text("A = 1\n")
        (work / "b.py").write_text("B = 1\n")
        git("init", "-q", cwd=work)
        git("add", "-A", cwd=work)
        git("commit", "-qm", "first", cwd=work)
        folder.rmdir()
        if is_packed:
            git("clone", "-q", "--bare", "--no-local", ".", str(folder.absolute()), cwd=work)
        else:
            shutil.copytree(work / ".git", folder)

    return make


# kind -> how its folder is made, what is read of it, how many documents these are
KINDS = {
    "jsonl in a folder": (records, {"kind": "jsonl"}, 6),
    "jsonl by glob": (records, {"kind": "jsonl", "path": "in/**/*json*"}, 6),
    "jsonl as a file": (records, {"kind": "jsonl", "path": "in/a.jsonl"}, 3),
    "jsonl.gz": (packed, {"kind": "jsonl"}, 3),
    "csv": (table(","), {"kind": "csv"}, 3),
    "tsv": (table("\t"), {"kind": "tsv"}, 3),
    "parquet": (parquet, {"kind": "parquet"}, 3),
    "datasets": (dataset, {"kind": "datasets"}, 3),
    "files": (code, {"kind": "files", "include": ["**/*.ipynb"]}, 3),
    "files without gitignore": (code, {"kind": "files", "gitignore": False}, 3),
    "one of files": (code, {"kind": "files", "path": "in/a.py"}, 1),
    "files by glob": (code, {"kind": "files", "path": "in/s*/*.py"}, 1),
    "zip": (zipped("a.zip", "a"), {"kind": "zip"}, 1),
    "wheels": (zipped("a-1.0-py3-none-any.whl", "a"), {"kind": "wheels"}, 1),
    "tar": (tarred("a.tar"), {"kind": "tar"}, 1),
    "sdists": (tarred("a-1.0.tar.gz"), {"kind": "sdists"}, 1),
    "git, loose": (repository(is_packed=False), {"kind": "git"}, 2),
    "git, packed": (repository(is_packed=True), {"kind": "git", "revision": "main"}, 2),
}


def read(settings):
    documents, refused = ingest(**{"path": "in", **settings})
    return [(d.source, d.path, d.id, d.text, d.place, d.licence) for d in documents], refused


def move_to(cache, folder=Path("in")):
    """What `dvc add` does with cache.type symlink: each file becomes a link, by its absolute path."""
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        target = Path(cache).resolve() / f"files/md5/{number:02x}/{file.name.encode().hex()}"
        target.parent.mkdir(parents=True)
        file.rename(target)
        target.chmod(0o444)
        file.symlink_to(target)


@pytest.mark.parametrize("cache", [".dvc/cache", "../shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_link_into_the_cache_is_the_file_it_stands_for(kind, cache):
    make, settings, count = KINDS[kind]
    make(Path("in"))
    Path(".dvc/config.local").write_text("" if cache == ".dvc/cache" else "[cache]\n    dir = ../../shared\n")
    before, digest = read(settings), hash_path(Path("in"))
    assert len(before[0]) == count
    move_to(cache)
    assert read(settings) == before
    assert hash_path(Path("in")) == digest


@pytest.mark.parametrize("kind", KINDS)
def test_what_dvc_ignores_is_not_read(kind):
    """DVC ignores a second file of each kind. No hash includes it, so no document may come from it."""
    make, settings, _ = KINDS[kind]
    make(Path("in"))
    before = read(settings)
    ignored = [
        file for file in Path("in").rglob("*.*") if file.is_file() and file.name not in ("state.json", ".gitignore")
    ]
    for number, file in enumerate(ignored):
        shutil.copy(file, file.with_name(f"ignored-{number}-1.0{''.join(file.suffixes)}"))
    Path(".dvcignore").write_text("ignored-*\n")
    assert read(settings) == before


@pytest.mark.parametrize("kind", ["jsonl", "files", "parquet"])
def test_a_glob_goes_through_no_linked_folder(kind):
    """`*` of Python follows a link to a folder; DVC does not."""
    Path("in/a").mkdir()
    {"jsonl": records, "files": code, "parquet": parquet}[kind](Path("in/a"))
    ending = {"jsonl": "jsonl", "files": "py", "parquet": "parquet"}[kind]
    settings = {"kind": kind, "path": f"in/*/*.{ending}"}
    before = read(settings)
    assert before[0]
    Path("in/latest").symlink_to("a")
    Path("in/out").symlink_to(Path("in/a").resolve())
    assert read(settings) == before


@pytest.mark.parametrize("what", ["state.json", "data.arrow"])
def test_a_part_of_a_saved_data_set_that_dvc_ignores_is_named(what):
    dataset(Path("in"))
    Path(".dvcignore").write_text(f"{what}\n")
    with pytest.raises(UserError, match=rf"^in/{what} is in no hash: DVC leaves it out"):
        read({"kind": "datasets"})


def test_a_gitignore_that_dvc_ignores_does_not_count():
    """No hash includes it, so it must not decide which files are documents."""
    code(Path("in"))
    Path(".dvcignore").write_text(".gitignore\n")
    assert "C = 1\n" in [text for _, _, _, text, *_ in read({"kind": "files"})[0]]


@pytest.mark.parametrize("target", ["a.py", "../other.py", "/etc/hostname"])
def test_other_links_below_a_folder_of_files_stay_unread(target):
    """The stage refuses links that lead out of the folder. It lists a link inside, and reads its target once."""
    code(Path("in"))
    Path("other.py").write_text("SECRET = 1\n")
    before, _ = read({"kind": "files"})
    Path("in/link.py").symlink_to(target)
    after, refused = read({"kind": "files"})
    assert after == before
    assert [item.path for item in refused] == ["link.py"]


def test_what_dvc_add_writes_into_a_gitignore_leaves_nothing_out():
    """`dvc add in/sub` lets Git ignore the folder; its files are documents as before."""
    code(Path("in"))
    Path("in/w [1]").mkdir()
    Path("in/w [1]/d.py").write_text("D = 1\n")
    before = read({"kind": "files"})
    assert len(before[0]) == 3
    for name in ("sub.dvc", "w [1].dvc", "other.dvc"):
        Path("in", name).touch()
    Path("in/.gitignore").write_text("/sub\n/w \\[1\\]\n/nothing\n")
    assert read({"kind": "files"}) == before
    Path("in/.gitignore").write_text("/sub\n/w \\[1\\]\n/a.py\n")
    assert len(read({"kind": "files"})[0]) == 2
