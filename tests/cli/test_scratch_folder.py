"""The temporary folder of an evaluation goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.cli.scratch_folder import OWNER, PREFIX, scratch_folder

PROGRAM = """
import time
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.errors import one_line_errors
with one_line_errors(), scratch_folder() as outer, scratch_folder() as folder:
    (folder / "big").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def ended_by(number: int, room: Path) -> tuple[int, str]:
    """Exit code and stderr of a process with two folders in `room` that gets the signal."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"TMPDIR": str(room)}
    ) as process:
        assert process.stdout
        assert Path(process.stdout.readline().strip()).parent == room
        assert len(list(room.glob(f"{PREFIX}*"))) == 2
        process.send_signal(number)
        return process.wait(), process.stderr.read() if process.stderr else ""


@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_removes_the_folder(tmp_path: Path, number: int, code: int, line: str) -> None:
    assert ended_by(number, tmp_path) == (code, f"error: {line}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ended_by(signal.SIGKILL, tmp_path) == (-9, "")
    assert len(list(tmp_path.iterdir())) == 2
    with scratch_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_other_folders_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of running processes, those that have no owner yet, other names, and links."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in (f"{PREFIX}runs", f"{PREFIX}starts", "other", "elsewhere"):
        (tmp_path / name).mkdir()
    for name in ("other", "elsewhere", f"{PREFIX}runs"):
        (tmp_path / name / OWNER).touch()
    (tmp_path / f"{PREFIX}link").symlink_to("elsewhere")
    before = sorted(tmp_path.iterdir())
    with (tmp_path / f"{PREFIX}runs" / OWNER).open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        with scratch_folder() as folder:
            assert sorted(tmp_path.iterdir()) == sorted([*before, folder])
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "elsewhere" / OWNER).exists()
