"""A disk fails or a file is cut short at any read of any reader: one line names the file, and no document is lost."""

from __future__ import annotations

import builtins
import errno
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.documents.document import read_documents, write_documents

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write

ROWS = "".join(json.dumps({"id": n, "text": f"row {n} " + "x" * 300}) + "\n" for n in range(300)).encode()
TABLE = ("id,text\n" + "".join(f'{n},"row {n} {"x" * 300}"\n' for n in range(300))).encode()
FILES = {f"m{n}.py": f"x = {n}\n".encode() for n in range(3)}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def zipped(name):
    Path(name).parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in FILES.items():
            archive.writestr(member, data)


def tarred(name, folder=""):
    Path(name).parent.mkdir(exist_ok=True)
    with tarfile.open(name, "w:gz" if name.endswith("gz") else "w") as archive:
        for member, data in FILES.items():
            info = tarfile.TarInfo(folder + member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def committed():
    for name, data in FILES.items():
        write(f"in/{name}", data)
    run = ["git", "-C", "in", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["gc", "-q"]):
        subprocess.run([*run, *words], check=True)


SOURCES = {
    "jsonl": ("jsonl", "in.jsonl", lambda: write("in.jsonl", ROWS)),
    "jsonl.gz": ("jsonl", "in.jsonl.gz", lambda: write("in.jsonl.gz", gzip.compress(ROWS))),
    "jsonl.zst": (
        "jsonl",
        "in.jsonl.zst",
        lambda: write("in.jsonl.zst", pa.compress(ROWS, codec="zstd", asbytes=True)),
    ),
    "csv": ("csv", "in.csv", lambda: write("in.csv", TABLE)),
    "files": ("files", "in", lambda: [write(f"in/{name}", data) for name, data in FILES.items()]),
    "zip": ("zip", "in.zip", lambda: zipped("in.zip")),
    "wheels": ("wheels", "in", lambda: zipped("in/pkg-1-py3-none-any.whl")),
    "tar": ("tar", "in.tar", lambda: tarred("in.tar")),
    "tar.gz": ("tar", "in.tar.gz", lambda: tarred("in.tar.gz")),
    "sdists": ("sdists", "in", lambda: tarred("in/pkg-1.tar.gz", "pkg-1/")),
    "git": ("git", "in", committed),
}


class Counted(io.FileIO):
    """A file below the current folder, of which one read goes wrong."""

    left = -1
    act = None
    hit = ""

    def _before(self):
        if Counted.left == 0:
            Counted.hit = os.path.relpath(Path(f"/proc/self/fd/{self.fileno()}").readlink())
            Counted.act(Counted.hit)
        Counted.left -= 1

    def readinto(self, buffer):
        self._before()
        return super().readinto(buffer)

    def read(self, size=-1):
        self._before()
        return super().read(size)

    def readall(self):
        self._before()
        return super().readall()


@pytest.fixture
def reads(monkeypatch):
    """Let the k-th read below the current folder go wrong: reads(k, act)."""
    real, pread = builtins.open, os.pread

    def opened(file, mode="r", buffering=-1, *args, **kwargs):
        if mode == "rb" and not str(file).startswith("/proc"):
            raw = Counted(file, closefd=kwargs.get("closefd", True))
            return raw if buffering == 0 else io.BufferedReader(raw, 8192)
        return real(file, mode, buffering, *args, **kwargs)

    def counted_pread(handle, size, place):
        Counted(handle, closefd=False)._before()
        return pread(handle, size, place)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", opened)
    monkeypatch.setattr(os, "pread", counted_pread)

    def start(number, act):
        Counted.left, Counted.act, Counted.hit = number, staticmethod(act), ""

    yield start
    Counted.left = -1


def fail(code):
    def act(_path):
        raise OSError(code, os.strerror(code))

    return act


def cut(path):
    os.truncate(path, Path(path).stat().st_size // 2)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", SOURCES)
def test_a_read_that_fails_anywhere_is_an_error_of_that_file_and_no_refusal(name, code, reads, capsys):
    kind, path, make = SOURCES[name]
    make()
    whole, _ = ingest(kind, path)
    met = 0
    for number in range(200):
        reads(number, fail(code))
        try:
            documents, refused = ingest(kind, path)
        except OSError as error:
            assert error.errno == code
            assert Counted.hit == error.filename or (kind == "git" and Counted.hit.startswith(f"{error.filename}/"))
            with pytest.raises(SystemExit) as ended, one_line_errors():
                raise
            assert ended.value.code == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ") and line.endswith(f"({error.filename})")
            met += 1
        else:
            assert Counted.hit == "" and documents == whole and refused == []
            break
    assert met >= 1 and Counted.hit == ""


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "git"])
def test_a_file_that_is_cut_at_any_read_never_gives_less_in_silence(name, reads):
    kind, path, make = SOURCES[name]
    make()
    whole, _ = ingest(kind, path)
    cuts = 0
    for number in range(200):
        make()
        reads(number, cut)
        try:
            documents, refused = ingest(kind, path)
        except UserError as error:
            assert Counted.hit in str(error)
            assert "changed while it was read" in str(error) or "is not a whole wheel" in str(error)
        else:
            if Counted.hit == "":
                break
            assert documents == whole or any(item.bad for item in refused)
        cuts += 1
    assert cuts >= 1 and Counted.hit == ""


EIO = OSError(errno.EIO, "Error reading bytes from file. Detail: [errno 5] Input/output error")  # as Arrow words it


@pytest.mark.parametrize("batch", range(4))
def test_a_disk_that_fails_at_any_batch_of_parquet_is_named(batch, monkeypatch):
    table = pa.table({"text": [f"row {n}" for n in range(3000)]})
    pq.write_table(table, "in.parquet")
    real, done = pq.ParquetFile.iter_batches, [0]

    def failing(self, *args, **kwargs):
        for item in real(self, *args, **kwargs):
            if done[0] == batch:
                raise EIO
            done[0] += 1
            yield item

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", failing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        ingest("parquet", "in.parquet")
    assert caught.value.filename == "in.parquet"


def test_arrow_files_are_read_without_a_map_and_a_real_error_of_the_disk_is_named(monkeypatch):
    write("in/state.json", json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    with pa.OSFile("in/a.arrow", "wb") as sink, pa.ipc.new_stream(sink, pa.schema([("text", pa.string())])) as writer:
        writer.write_table(pa.table({"text": ["one", "two"]}))
    assert [d.text for d in ingest("datasets")[0]] == ["one", "two"]
    real = pa.OSFile
    monkeypatch.setattr(pa, "OSFile", lambda path: real("/proc/self/mem"))  # its first page gives EIO
    with pytest.raises(OSError, match="Input/output error") as caught:
        ingest("datasets")
    assert caught.value.filename == "in/a.arrow"


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_an_arrow_file_that_is_cut_between_plan_and_read_is_reported(kind, monkeypatch):
    path = "in.parquet" if kind == "parquet" else "in"
    table = pa.table({"text": [f"row {n}" for n in range(3000)]})
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        write("in/state.json", json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
        with pa.OSFile("in/a.arrow", "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    from helpers import tasks

    (task,) = tasks(kind, path)
    cut(task.context.path)
    with pytest.raises(UserError, match="changed while it was read"):
        list(task.read())


def test_an_error_of_another_file_does_not_blame_the_open_corpus():
    write_documents(Path("corpus.parquet"), [])
    with pytest.raises(OSError, match="space") as caught:
        for _ in iter_while_writing():
            pass
    assert caught.value.filename is None


def iter_while_writing():
    from codex_ml.documents.document import opened

    with opened(Path("corpus.parquet")):
        yield 1
        raise OSError(errno.ENOSPC, "No space left: Error writing bytes to file")


def test_a_disk_error_on_our_own_corpus_is_not_reported_as_damage(monkeypatch):
    write_documents(Path("corpus.parquet"), [])

    def failing(*_):
        raise EIO

    monkeypatch.setattr(pq, "ParquetFile", failing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(read_documents(Path("corpus.parquet")))
    assert caught.value.filename == "corpus.parquet"
