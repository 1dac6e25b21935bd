"""Lines that several processes append are never torn; a log has a largest size, and only so many older files."""

import errno
import os
import shutil
import subprocess
import sys

import pytest

from codex_ml.core.line_file import LONGEST_LINE, LineFile, older_files, read_lines


def numbered(count):
    return [b"%07d\n" % number for number in range(count)]  # 8 bytes each


def test_a_full_file_goes_on_in_a_new_one_and_the_oldest_is_deleted(tmp_path):
    path = tmp_path / "x.ndjson"
    file = LineFile(path, limit=24, kept=2)
    for line in numbered(10):
        file.append(line)
    file.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["x.ndjson", "x.ndjson.1", "x.ndjson.2"]
    assert path.read_bytes() == b"0000009\n"
    assert (tmp_path / "x.ndjson.1").read_bytes() == b"0000006\n0000007\n0000008\n"
    assert list(read_lines(path)) == [b"%07d" % number for number in range(3, 10)]
    assert [found.name for found in older_files(path)] == ["x.ndjson.2", "x.ndjson.1"]


def test_fewer_older_files_are_kept_after_the_number_was_lowered(tmp_path):
    path = tmp_path / "x.ndjson"
    for number in (1, 2, 3, 4):
        (tmp_path / f"x.ndjson.{number}").write_bytes(b"old\n")
    file = LineFile(path, limit=8, kept=1)
    for line in numbered(2):
        file.append(line)
    file.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["x.ndjson", "x.ndjson.1"]


def test_a_line_longer_than_the_limit_gets_a_file_of_its_own(tmp_path):
    file = LineFile(tmp_path / "x", limit=10, kept=3)
    for line in (b"a\n", b"b" * 50 + b"\n", b"c\n"):
        file.append(line)
    file.close()
    assert [(tmp_path / name).read_bytes() for name in ("x.2", "x.1", "x")] == [b"a\n", b"b" * 50 + b"\n", b"c\n"]


def test_four_processes_tear_and_lose_no_line_while_the_file_is_rotated(tmp_path, repository):
    code = (
        "import sys; from pathlib import Path; from codex_ml.core.line_file import LineFile\n"
        "file = LineFile(Path('x'), limit=20_000, kept=1000)\n"
        "for n in range(400): file.append(f'{sys.argv[1]}-{n}-{sys.argv[1] * (n % 200)}\\n'.encode())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen([*command, name], cwd=tmp_path, env=environment) for name in "abcd"]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    found = [line.decode() for line in read_lines(tmp_path / "x")]
    assert len(older_files(tmp_path / "x")) > 5
    assert sorted(found) == sorted(f"{name}-{n}-{name * (n % 200)}" for name in "abcd" for n in range(400))
    for name in "abcd":  # each process's lines are in their order
        assert [int(line.split("-")[1]) for line in found if line[0] == name] == list(range(400))


def test_a_line_after_one_that_was_cut_off_begins_a_new_line(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'{"half": ')
    file = LineFile(path, limit=1000, kept=1)
    file.append(b"{}\n")
    file.close()
    assert list(read_lines(path)) == [b'{"half": ', b"{}"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "x"
    file = LineFile(path, limit=1000, kept=1)
    file.append(b"whole\n")
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is asserted
        file.append(b"torn\n")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    monkeypatch.undo()
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == b"whole\nnext\n"


def test_what_is_not_a_file_is_refused_and_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        LineFile(tmp_path / "pipe", limit=1000, kept=1).append(b"x\n")
    assert list(read_lines(tmp_path / "pipe")) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        LineFile(tmp_path / "folder", limit=1000, kept=1).append(b"x\n")


def test_a_deleted_log_is_written_anew(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    file = LineFile(folder / "x", limit=1000, kept=1)
    file.append(b"one\n")
    (folder / "x").unlink()
    file.append(b"two\n")
    assert (folder / "x").read_bytes() == b"two\n"
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        file.append(b"three\n")


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a" * (3 * LONGEST_LINE) + b"\nb\n")
    assert [len(line) for line in read_lines(path)] == [LONGEST_LINE, 1]
