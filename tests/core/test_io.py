"""Readers see the old file or the new one, whatever fails; hashes are DVC's; JSON is strict in both directions."""

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from codex_ml.core import io
from codex_ml.core.errors import UserError

OLD, NEW = b"old contents", b"new contents, longer than before"


class FailAt:
    """Let the Nth file operation fail (and all later ones, when `persistent`), as SQLite's I/O error tests do."""

    def __init__(self, monkeypatch, number, code, *, persistent):
        self.left, self.code, self.persistent, self.fired = number, code, persistent, False
        for name in ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        real = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *a, **k: _FailingFile(self, self.call(real, path, *a, **k)))

    def call(self, function, *arguments, **options):
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.persistent):
            self.fired = True
            raise OSError(self.code, os.strerror(self.code))
        return function(*arguments, **options)

    def _counted(self, function):
        return lambda *arguments, **options: self.call(function, *arguments, **options)


class _FailingFile:
    def __init__(self, faults, file):
        self.faults, self.file = faults, file

    def write(self, data):
        half = len(data) // 2
        self.file.write(data[:half])  # a real fault leaves a half-written file
        self.file.flush()
        return self.faults.call(self.file.write, data[half:])

    def flush(self):
        self.faults.call(self.file.flush)

    def fileno(self):
        return self.file.fileno()

    def read(self, size):
        return self.faults.call(self.file.read, size)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def write_file(path, data):
    io.write_bytes(path, data)


def write_folder(path, data):
    with io.atomic_folder(path) as folder:
        (folder / "sub").mkdir()
        with (folder / "sub" / "file").open("wb") as handle:
            handle.write(data)


def contents(path):
    if path.is_dir():
        return [(p.relative_to(path).as_posix(), p.read_bytes()) for p in sorted(path.rglob("*")) if p.is_file()]
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("persistent", [False, True], ids=["transient", "persistent"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=lambda c: errno.errorcode[c])
@pytest.mark.parametrize("had_old", [False, True], ids=["first", "replace"])
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_failing_operation_never_leaves_half_a_result(tmp_path, monkeypatch, write, had_old, code, persistent):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # counted all the same; the disk itself is not on trial
    whole = {}
    for data in (OLD, NEW):
        write(tmp_path / "reference", data)
        whole[data] = contents(tmp_path / "reference")
    shutil.rmtree(tmp_path / "reference", ignore_errors=True)
    (tmp_path / "reference").unlink(missing_ok=True)
    target = tmp_path / "out" / "target"
    for number in range(1, 100):
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        if had_old:
            write(target, OLD)
        with pytest.MonkeyPatch.context() as patch:
            faults = FailAt(patch, number, code, persistent=persistent)
            try:
                write(target, NEW)
                failed = False
            except OSError as error:
                failed = True
                assert error.errno == code
        state = contents(target)
        assert failed or state == whole[NEW], f"operation {number} failed and nobody was told"
        allowed = [None, whole[OLD], whole[NEW]] if had_old else [None, whole[NEW]]
        if write is write_file and had_old:
            allowed.remove(None)  # a rename over a file leaves no gap
        assert state in allowed, f"operation {number}"
        write(target, NEW)
        assert contents(target) == whole[NEW]
        assert [p.name for p in target.parent.iterdir()] == ["target"], f"operation {number} left a temporary name"
        if not faults.fired:
            break
    assert number > 5, "no fault was ever injected"


def test_a_failing_rename_of_a_folder_keeps_the_old_one_or_its_copy(tmp_path, monkeypatch):
    """The old result took hours; an error between the two renames must not throw it away."""
    target = tmp_path / "target"
    write_folder(target, OLD)
    real, calls = os.rename, []

    def second_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", second_fails)
        with pytest.raises(OSError, match="Input/output"):
            write_folder(target, NEW)
    assert contents(target) == [("sub/file", OLD)]


KILLED = """
import os, signal, sys
from pathlib import Path
from codex_ml.core import io
from codex_ml.core.errors import UserError

def write(path, data):
    with io.atomic_folder(path) as folder:
        (folder / "a").write_bytes(data)
        (folder / "b").write_bytes(data)

def killing(function, state):
    def call(*arguments, **options):
        state[0] -= 1
        if state[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

base = Path(sys.argv[1])
kills = 0
for number in range(1, 60):
    for had_old in (False, True):
        folder = base / f"{number}-{had_old}"
        target = folder / "target"
        if had_old:
            write(target, b"old")
        child = os.fork()
        if child == 0:
            state = [number]
            for name in ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
                setattr(os, name, killing(getattr(os, name), state))
            write(target, b"new")
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        kills += killed
        found = {p.name: p.read_bytes() for p in target.iterdir()} if target.exists() else None
        new = {"a": b"new", "b": b"new"}
        assert found in [None, new] + [{"a": b"old", "b": b"old"}] * had_old, (number, had_old, found)
        assert killed or found == new
        write(target, b"new")
        assert {p.name: p.read_bytes() for p in target.iterdir()} == new
        assert [p.name for p in folder.iterdir()] == ["target"], (number, had_old, list(folder.iterdir()))
print(kills)
"""


def test_kill_9_inside_a_folder_leaves_nothing_half_and_the_next_run_cleans_up(tmp_path, run_python):
    done = run_python("-c", KILLED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15


FULL = """
import resource, signal, sys
from pathlib import Path
from codex_ml.core import io
from codex_ml.core.errors import UserError
from codex_ml.core.errors import one_line_errors

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
io.write_bytes(folder / "target", b"old")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
try:
    with one_line_errors():
        io.write_bytes(folder / "target", b"n" * 300_000)
finally:  # coverage writes a file of its own at exit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


def assert_old_is_kept(folder, done, message):
    assert (done.returncode, done.stderr) == (1, f"error: {message} ({folder}/target)\n")
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("target", b"old")]


def test_a_file_size_limit_is_reported_and_the_old_file_stays(tmp_path, run_python):
    done = run_python("-c", FULL, str(tmp_path), "100000")
    assert_old_is_kept(tmp_path, done, "a file would grow beyond the size limit of this process (ulimit -f)")


def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path, run_python):
    """On a real 64 KiB disk where user namespaces are on; else its twin, a file system that says ENOSPC at the write."""
    try:
        namespaces = subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        namespaces = False
    print("a tmpfs is full" if namespaces else "no user namespaces: write() is patched")
    message = "the disk is full; free some space and run the same command again"
    if namespaces:
        check = FULL.replace("try:", CHECKED_AT_EXIT + "try:")
        (tmp_path / "full.py").write_text(check)
        (tmp_path / "disk").mkdir()
        shell = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" "$3" "$1" 0'
        done = run_python(
            "-c",
            "import os, sys; os.execvp('unshare', ['unshare', '-Urm', 'sh', '-c', *sys.argv[1:3], *sys.argv[3:]])",
            shell, "sh", str(tmp_path / "disk"), os.sys.executable, str(tmp_path / "full.py"),
        )  # fmt: skip
        told = f"error: {message} ({tmp_path}/disk/target)\n"
        assert (done.returncode, done.stderr, done.stdout) == (1, told, "[('target', b'old')]\n")
    else:
        patched = FULL.replace("try:", FULL_WRITE + "try:")
        assert_old_is_kept(tmp_path, run_python("-c", patched, str(tmp_path), "0"), message)


CHECKED_AT_EXIT = """
import atexit
atexit.register(lambda: print([(p.name, p.read_bytes()) for p in folder.iterdir()]))
"""
FULL_WRITE = """
import errno, os
def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
os.fsync = full
"""


def test_an_error_in_the_block_removes_the_temporary_name(tmp_path):
    for write in (io.atomic_file, io.atomic_folder):
        with pytest.raises(KeyboardInterrupt), write(tmp_path / "target"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plain", "a[1].json", "with space", "ünï*?"])
def test_what_a_killed_process_left_is_deleted(tmp_path, name):
    (tmp_path / f".{name}.tmp-123").write_bytes(b"half")
    (tmp_path / f".{name}.tmp-old").mkdir()
    (tmp_path / f".{name}.tmp-old" / "file").write_bytes(b"half")
    (tmp_path / ".other.tmp-123").write_bytes(b"not ours")
    io.write_bytes(tmp_path / name, NEW)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".other.tmp-123", name])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, make):
    """As root, a rename would replace /dev/null."""
    make(tmp_path / "name")
    with pytest.raises(
        UserError, match=r"name is not a regular file, so no file is put in its place; name another one$"
    ):
        io.write_text(tmp_path / "name", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert not (tmp_path / "name").is_file()


def test_folders_above_are_made(tmp_path):
    io.write_text(tmp_path / "a" / "b" / "c.txt", "ü\r\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"\xc3\xbc\r\n"


@pytest.fixture
def with_umask():
    """with_umask(mask): the umask of the rest of the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def private(path):
    """As the safetensors library writes: a file of mode 0600 from `tempfile`, renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    os.write(handle, b"weights")
    os.close(handle)
    Path(name).rename(path)


def modes(path):
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in [path, *path.rglob("*")]}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002, 0o000])
def test_files_and_folders_have_the_mode_of_the_umask_whichever_library_wrote_them(tmp_path, with_umask, mask):
    with_umask(0o022)
    source = tmp_path / "source"
    source.mkdir(mode=0o700)
    private(source / "copied")
    with_umask(mask)
    with io.atomic_folder(tmp_path / "out") as folder:
        private(folder / "tensors")
        (folder / "plain").write_bytes(b"")
        (folder / "program").touch(mode=0o777)
        shutil.copytree(source, folder / "inner")
        (folder / "inner" / "deep").mkdir(mode=0o700)
        private(folder / "inner" / "deep" / "tensors too")
    expected = dict.fromkeys(("out", "inner", "deep"), 0o777 & ~mask)
    expected |= dict.fromkeys(("tensors", "plain", "program", "copied", "tensors too"), 0o666 & ~mask)
    assert modes(tmp_path / "out") == expected
    with io.atomic_file(tmp_path / "alone") as handle:
        private(Path(handle.name))
    assert (tmp_path / "alone").read_bytes() == b"weights"
    io.write_json(tmp_path / "json", 1)
    assert {name: mode for name, mode in modes(tmp_path).items() if name in ("alone", "json")} == dict.fromkeys(
        ("alone", "json"), 0o666 & ~mask
    )


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_weights_of_safetensors_have_the_mode_of_the_umask(tmp_path, with_umask, mask):
    import torch
    from safetensors.torch import load_file, save_file

    with_umask(mask)
    with io.atomic_folder(tmp_path / "out") as folder:
        save_file({"x": torch.ones(3)}, folder / "model.safetensors")
    with io.atomic_file(tmp_path / "best.safetensors") as handle:
        save_file({"x": torch.ones(3)}, handle.name)
    for file in (tmp_path / "out/model.safetensors", tmp_path / "best.safetensors"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
        assert load_file(file)["x"].tolist() == [1, 1, 1]
