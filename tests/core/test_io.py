"""Readers see the old file or the new one, whatever fails; hashes are DVC's; JSON is strict in both directions."""

import errno
import json
import os
import random
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
from codex_ml.core.errors import one_line_errors

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
io.write_bytes(folder / "target", b"old")
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with one_line_errors():
    io.write_bytes(folder / "target", b"n" * 300_000)
"""


def assert_old_is_kept(folder, done, message):
    assert (done.returncode, done.stderr) == (1, f"error: {message} ({folder}/target)\n")
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("target", b"old")]


def test_a_file_size_limit_is_told_and_the_old_file_stays(tmp_path, run_python):
    done = run_python("-c", FULL, str(tmp_path), "100000")
    assert_old_is_kept(tmp_path, done, "a file would grow beyond the size limit of this process (ulimit -f)")


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path, run_python):
    """On a real 64 KiB disk where user namespaces are on; else its twin, a file system that says ENOSPC at the write."""
    try:
        namespaces = subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        namespaces = False
    print("a tmpfs is full" if namespaces else "no user namespaces: write() is patched")
    message = "the disk is full; free some space and run the same command again"
    if namespaces:
        check = FULL.replace("with one_line_errors():", CHECKED_AT_EXIT + "with one_line_errors():")
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
        patched = FULL.replace("with one_line_errors():", FULL_WRITE + "with one_line_errors():")
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
def test_what_a_killed_process_left_behind_goes_away(tmp_path, name):
    (tmp_path / f".{name}.tmp-123").write_bytes(b"half")
    (tmp_path / f".{name}.tmp-old").mkdir()
    (tmp_path / f".{name}.tmp-old" / "file").write_bytes(b"half")
    (tmp_path / ".other.tmp-123").write_bytes(b"not ours")
    io.write_bytes(tmp_path / name, NEW)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".other.tmp-123", name])


def test_folders_above_are_made(tmp_path):
    io.write_text(tmp_path / "a" / "b" / "c.txt", "ü\r\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"\xc3\xbc\r\n"


def dvc_md5(folder):
    """What DVC itself computes."""
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.memory import MemoryFileSystem

    store = HashFileDB(MemoryFileSystem(), "memory://test")
    return build(store, str(folder), LocalFileSystem(), "md5", dry_run=True)[2].hash_info.value


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


@pytest.mark.parametrize("name", FOLDERS)
def test_the_hash_of_a_folder_is_what_dvc_computes(tmp_path, name):
    for file, data in FOLDERS[name].items():
        io.write_bytes(tmp_path / file, data)
    (tmp_path / "no files here").mkdir()
    found = io.hash_path(tmp_path)
    assert found.md5 == dvc_md5(tmp_path)
    assert found.size == sum(map(len, FOLDERS[name].values()))


def test_links_in_a_folder_count_as_dvc_counts_them(tmp_path):
    io.write_bytes(tmp_path / "in" / "sub" / "file", b"1")
    (tmp_path / "in" / "to-file").symlink_to("sub/file")
    (tmp_path / "in" / "to-folder").symlink_to("sub")
    assert io.hash_path(tmp_path / "in").md5 == dvc_md5(tmp_path / "in")


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
    assert recorded == io.hash_path(Path("data/raw/mine")).md5


def test_the_hashes_of_a_file_are_those_of_the_standards(tmp_path):
    io.write_bytes(tmp_path / "abc", b"abc")
    # RFC 1321 appendix A.5; FIPS 180-2 appendix B.1
    assert io.hash_path(tmp_path / "abc") == io.Hashes(
        "900150983cd24fb0d6963f7d28e17f72", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3
    )
    assert io.sha256_of(tmp_path / "abc").startswith("ba7816bf")


def test_a_large_file_is_hashed_over_chunk_borders(tmp_path):
    import hashlib

    data = random.Random(0).randbytes(2 * io.CHUNK + 1)
    io.write_bytes(tmp_path / "large", data)
    assert io.hash_file(tmp_path / "large").sha256 == hashlib.sha256(data).hexdigest()


def test_json_is_written_with_sorted_keys_and_without_escapes(tmp_path):
    io.write_json(tmp_path / "a.json", {"b": 1, "a": ["ü", None, 0.1]})
    assert (
        tmp_path / "a.json"
    ).read_bytes() == '{\n  "a": [\n    "ü",\n    null,\n    0.1\n  ],\n  "b": 1\n}\n'.encode()
    assert io.read_json(tmp_path / "a.json") == {"a": ["ü", None, 0.1], "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("-inf")}]])
def test_what_is_no_json_number_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_ndjson(tmp_path / "a.ndjson", [{"good": 1}, value])
    assert list(tmp_path.iterdir()) == []


def test_keys_that_would_be_equal_as_text_are_not_written():
    with pytest.raises(TypeError):
        io.dump_json({1: "a", "1": "b"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "the number 1e999 is too large for a double"),
        ("-1e999", "the number -1e999 is too large for a double"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice in one object"),
        ("[1,]", "Illegal trailing comma"),
        ("{'a': 1}", "Expecting property name"),
        ("01", "Extra data"),
        ("", "Expecting value"),
        ('"\x0b"', "Invalid control character"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_is_not_strict_json_is_refused_by_name(tmp_path, text, why):
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        io.parse_json(text)
    io.write_text(tmp_path / "a.json", text)
    with pytest.raises(UserError) as error:
        io.read_json(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'} is not valid JSON: {why}")


@pytest.mark.parametrize("data", [b"\xff\xfe\xff", b'{"a": "\xe9"}'], ids=["utf-16", "latin-1"])
def test_json_in_another_encoding_is_refused_by_name(tmp_path, data):
    io.write_bytes(tmp_path / "a.json", data)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        io.read_json(tmp_path / "a.json")


def test_json_nested_too_deeply_is_refused_by_name(tmp_path):
    io.write_bytes(tmp_path / "a.json", b"[" * 200_000)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        io.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [1, 199, 200, 201, 600, 1500, 5000])
def test_json_may_have_two_hundred_levels_in_every_python(opening, depth):
    """Python 3.11 parses about 900 levels, 3.13 some thousands; a record must not be read by the one alone."""
    text = opening * depth + "1" + {"[": "]", '{"a":': "}"}[opening] * depth
    if depth <= 200:
        io.parse_json(text)
    else:
        with pytest.raises(ValueError, match="nested too deeply, more than 200 levels"):
            io.parse_json(text)


def test_brackets_inside_texts_are_no_levels():
    for value in ("[" * 999, {"[" * 300: "{" * 300}, [[1]] * 500, "{"):
        assert io.parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,]", "Illegal trailing comma before end of array: line 1 column 3 (char 2)"),
        ('{"a": [1 ,\n ]}', "Illegal trailing comma before end of array: line 1 column 10 (char 9)"),
        ('{"a": 1,\n}', "Illegal trailing comma before end of object: line 1 column 8 (char 7)"),
        ("[1,}", "Expecting value: line 1 column 4 (char 3)"),
        ("[,]", "Expecting value: line 1 column 2 (char 1)"),
        ("[1,", "Expecting value: line 1 column 4 (char 3)"),
        ('{"a": 1,', "Expecting property name enclosed in double quotes: line 1 column 9 (char 8)"),
    ],
)
def test_json_errors_read_the_same_in_every_python(text, message):
    with pytest.raises(json.JSONDecodeError) as error:
        io.parse_json(text)
    assert str(error.value) == message


GLOB_TREE = ("ab.jsonl", "abc.jsonl", "d/x.jsonl", "d/e/y.jsonl", "d/e/.hidden")


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("**", ["ab.jsonl", "abc.jsonl", "d", "d/e", "d/e/.hidden", "d/e/y.jsonl", "d/x.jsonl"]),
        ("d/**", ["d/e", "d/e/.hidden", "d/e/y.jsonl", "d/x.jsonl"]),
        ("**/*.jsonl", ["ab.jsonl", "abc.jsonl", "d/e/y.jsonl", "d/x.jsonl"]),
        ("d/**/y.jsonl", ["d/e/y.jsonl"]),
        ("a*.jsonl", ["ab.jsonl", "abc.jsonl"]),
        ("a[b].jsonl", ["ab.jsonl"]),
        ("none*", []),
        ("a**.jsonl", None),
        ("d/**x", None),
        ("***", None),
        ("d/a**/x", None),
    ],
)
def test_a_glob_means_the_same_in_every_python(tmp_path, monkeypatch, pattern, paths):
    monkeypatch.chdir(tmp_path)
    for name in GLOB_TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if paths is None:
        with pytest.raises(ValueError, match=r"use \* inside a name"):
            io.expand_glob(pattern)
    else:
        assert [path.as_posix() for path in io.expand_glob(pattern)] == paths


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing$"):
        io.read_json(tmp_path / "a.json")


def test_ndjson_is_one_value_a_line_whatever_the_strings_hold(tmp_path):
    rows = [{"text": "a\nb\u2028c\u0085"}, [], "ü", 1.5]
    io.write_ndjson(tmp_path / "a.ndjson", iter(rows))
    lines = (tmp_path / "a.ndjson").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == rows


def test_ndjson_is_utf_8_even_for_a_lone_surrogate(tmp_path):
    """RFC 8259 section 8.1: JSON text is UTF-8, and other tools must be able to read our reports."""
    io.write_ndjson(tmp_path / "a.ndjson", [{"path": "name \udcff"}])
    (tmp_path / "a.ndjson").read_bytes().decode("utf-8")


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
def test_files_and_folders_have_the_mode_of_the_umask_whoever_wrote_them(tmp_path, with_umask, mask):
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


def test_a_glob_finds_what_pathlib_finds_and_lists_each_folder_once_per_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(4)
    for _ in range(60):
        file = Path("data", *rng.choices("abc", k=rng.randint(0, 4)), rng.choice(["x.py", "y.txt", ".z"]))
        if all(part.is_dir() or not part.exists() for part in file.parents):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
    (tmp_path / "data/link").symlink_to("a")
    for _ in range(150):
        pattern = "/".join(["data", *rng.choices(["**", "*", "a", "[ab]", "?", "link"], k=rng.randint(0, 4)), "*.py"])
        expected = {path for path in Path().glob(pattern) if "link" not in path.parts}
        assert {path for path in io.expand_glob(pattern) if "link" not in path.parts} == expected, pattern
    Path("deep", *["a"] * 60).mkdir(parents=True)
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    assert list(io.expand_glob("deep/" + "**/a/" * 10 + "b")) == []
    assert len(listed) < 10 * 62
