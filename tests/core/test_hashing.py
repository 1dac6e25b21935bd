"""Digests are those of the standards and of DVC."""

import random
import shutil
from pathlib import Path

import pytest

from codex_ml.core import hashing, io

FOLDERS = {
    "empty": {},
    "one": {"a": b"1"},
    "order": {
        "b.txt": b"1",
        "b/c": b"2",
        "B": b"3",
        "b-1": b"",
        "b0": b"4",
        "ü.txt": b"5",
        "\U0001f600": b"6",
        "\uff5e": b"7",
    },
    "crlf and nested": {"x/y/z": b"a\r\nb\r\n", "x/y.txt": b"\0", ".hidden": b"h", "x/.gitkeep": b"g"},
}


def dvc_md5(folder):
    """What DVC itself computes."""
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.memory import MemoryFileSystem

    store = HashFileDB(MemoryFileSystem(), "memory://test")
    return build(store, str(folder), LocalFileSystem(), "md5", dry_run=True)[2].hash_info.value


@pytest.mark.parametrize("name", FOLDERS)
def test_the_hash_of_a_folder_is_what_dvc_computes(tmp_path, name):
    for file, data in FOLDERS[name].items():
        io.write_bytes(tmp_path / file, data)
    (tmp_path / "no files here").mkdir()
    found = hashing.hash_path(tmp_path)
    assert found.md5 == dvc_md5(tmp_path)
    assert found.size == sum(map(len, FOLDERS[name].values()))


def test_links_in_a_folder_count_as_dvc_counts_them(tmp_path):
    io.write_bytes(tmp_path / "in" / "sub" / "file", b"1")
    (tmp_path / "in" / "to-file").symlink_to("sub/file")
    (tmp_path / "in" / "to-folder").symlink_to("sub")
    assert hashing.hash_path(tmp_path / "in").md5 == dvc_md5(tmp_path / "in")


def test_user_data_in_folders_named_build_or_logs_is_hashed_by_dvc_too(tmp_path, repository, monkeypatch):
    """A pattern of .dvcignore must not hide documents: DVC would not notice their change, and verify would fail."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    shutil.copy(repository / ".dvcignore", ".dvcignore")
    for name in ("app/build/a.py", "app/logs/b.py", "app/dist/c.py", "venv/d.py", "app/e.py"):
        io.write_bytes(Path("data/raw/mine", name), name.encode())
    with Repo() as repo:
        repo.add("data/raw/mine")
    recorded = Path("data/raw/mine.dvc").read_text().split("md5: ")[1].split()[0]
    assert recorded == hashing.hash_path(Path("data/raw/mine")).md5


def test_the_hashes_of_a_file_are_those_of_the_standards(tmp_path):
    io.write_bytes(tmp_path / "abc", b"abc")
    # RFC 1321 appendix A.5; FIPS 180-2 appendix B.1
    assert hashing.hash_path(tmp_path / "abc") == hashing.Hashes(
        "900150983cd24fb0d6963f7d28e17f72", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3
    )
    assert hashing.sha256_of(tmp_path / "abc").startswith("ba7816bf")


def test_a_large_file_is_hashed_over_chunk_borders(tmp_path):
    import hashlib

    data = random.Random(0).randbytes(2 * hashing.CHUNK + 1)
    io.write_bytes(tmp_path / "large", data)
    assert hashing.hash_file(tmp_path / "large").sha256 == hashlib.sha256(data).hexdigest()
