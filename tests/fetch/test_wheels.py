"""The sample is downloaded once, byte for byte what is pinned, or nothing is written."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.fetch import wheels as module
from codex_ml.fetch.pins import Pin, read_pins
from codex_ml.fetch.wheels import fetch_wheels


def make_wheel(folder, name, version, body=b"x = 1\n", tag="py3-none-any"):
    file = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", body)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


def pin(file, name=None):
    return Pin(name or file.name.split("-")[0], file.name.split("-")[1], hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def fake_pip(index, monkeypatch):
    """Does pip's part in this process, because real pip starts slowly: it copies the requested wheels from the index."""
    calls = []

    def run(command, **options):
        destination = command[command.index("--dest") + 1]
        wanted = command[command.index("--dest") + 2 :]
        assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:"} <= set(command)
        assert len({w.split("==")[0] for w in wanted}) == len(wanted), "pip refuses two releases of one name"
        calls.append(wanted)
        for requirement in wanted:
            name, version = requirement.split("==")
            for wheel in index.glob(f"{name.replace('-', '_')}-{version}-*.whl"):
                (module.Path(destination) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    return calls


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_real_pip_downloads_two_releases_of_one_name_offline_and_only_once(index, tmp_path, monkeypatch):
    pins = [
        pin(make_wheel(index, "aaa", "1.0")),
        pin(make_wheel(index, "aaa", "2.0", b"x = 2\n")),
        pin(make_wheel(index, "b_c", "3"), "b-c"),
    ]
    out, store = tmp_path / "out", tmp_path / "store"
    assert fetch_wheels(pins, into=out, store=store) == 3
    assert names(out) == names(index)
    assert all((out / name).read_bytes() == (index / name).read_bytes() for name in names(out))
    assert names(store) == sorted(p.sha256 for p in pins)
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: pytest.fail("pip was called"))
    for wheel in out.iterdir():
        wheel.unlink()
    assert fetch_wheels(pins, into=out, store=store) == 0
    assert names(out) == names(index)


def test_a_wheel_that_pip_cannot_find_is_one_line(index, tmp_path):
    missing = Pin("no-such-thing", "1.0", "0" * 64)
    with pytest.raises(
        CheckFailed,
        match=r"^pip could not download the sample \(ERROR: .*no-such-thing.*\); is a package index reachable\?$",
    ) as error:
        fetch_wheels([missing], into=tmp_path / "out", store=tmp_path / "store")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_wrong_hash_names_both_and_writes_nothing(index, fake_pip, tmp_path):
    good = pin(make_wheel(index, "aaa", "1.0"))
    real = pin(make_wheel(index, "bbb", "1.0"))
    wrong = Pin("bbb", "1.0", "0" * 64)
    with pytest.raises(CheckFailed) as error:
        fetch_wheels([good, wrong], into=tmp_path / "out", store=tmp_path / "store")
    assert (
        str(error.value)
        == f"bbb==1.0: wrong hash, nothing was written; pinned sha256 {'0' * 64}, downloaded {real.sha256}"
    )
    assert not (tmp_path / "out").exists()
    assert names(tmp_path / "store") == []


def test_a_damaged_wheel_of_the_store_is_downloaded_again(index, fake_pip, tmp_path, caplog):
    one = pin(make_wheel(index, "aaa", "1.0"))
    out, store = tmp_path / "out", tmp_path / "store"
    assert fetch_wheels([one], into=out, store=store) == 1
    good = (out / "aaa-1.0-py3-none-any.whl").read_bytes()
    for folder in (out, store / one.sha256):
        (folder / "aaa-1.0-py3-none-any.whl").write_bytes(good[:-1] + b"x")
    assert fetch_wheels([one], into=out, store=store) == 1
    assert "aaa-1.0-py3-none-any.whl in the download store is damaged" in caplog.text
    assert (out / "aaa-1.0-py3-none-any.whl").read_bytes() == good
    assert fetch_wheels([one], into=out, store=store) == 0


def test_the_output_serves_as_store_and_what_is_not_pinned_goes_away(index, fake_pip, tmp_path):
    one, two = pin(make_wheel(index, "aaa", "1.0")), pin(make_wheel(index, "bbb", "1.0"))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("aaa-1.0-py3-none-any.whl", "bbb-1.0-py3-none-any.whl"):
        (out / name).write_bytes((index / name).read_bytes())
    (out / "stray-1.0-py3-none-any.whl").write_bytes(b"not pinned")
    assert fetch_wheels([one], into=out, store=tmp_path / "store") == 0
    assert names(out) == ["aaa-1.0-py3-none-any.whl"]
    assert fetch_wheels([one, two], into=out, store=tmp_path / "store") == 1
    assert fake_pip == [["bbb==1.0"]]


def test_three_releases_of_one_name_take_three_calls(index, fake_pip, tmp_path):
    pins = [pin(make_wheel(index, "aaa", str(v))) for v in (1, 2, 3)] + [pin(make_wheel(index, "bbb", "1"))]
    assert fetch_wheels(pins, into=tmp_path / "out", store=tmp_path / "store") == 4
    assert sorted(map(len, fake_pip)) == [1, 1, 2]


def test_a_release_without_pure_python_wheel_is_reported(index, fake_pip, tmp_path):
    one = pin(make_wheel(index, "aaa", "1.0", tag="cp311-cp311-linux_x86_64"))
    with pytest.raises(CheckFailed, match=r"^aaa==1\.0: pip downloaded no pure-Python wheel of this release$"):
        fetch_wheels([one], into=tmp_path / "out", store=tmp_path / "store")


@pytest.mark.parametrize("password", ["s3cr" + "et", "p@rt" + "two", "a:b" + "c@d@e"])
@pytest.mark.parametrize("stderr", ["WARNING: x\nERROR: cannot reach {url}\n", "Traceback\ncannot reach {url}\n"])
def test_the_credentials_of_an_index_are_never_shown(monkeypatch, tmp_path, password, stderr):
    text = stderr.format(url=f"https://user:{password}@index.invalid/simple and http://user:{password}@other.invalid")
    failed = lambda command, **options: subprocess.CompletedProcess(command, 1, "", text)  # noqa: E731
    monkeypatch.setattr(module.subprocess, "run", failed)
    with pytest.raises(CheckFailed) as error:
        fetch_wheels([Pin("aaa", "1.0", "0" * 64)], into=tmp_path / "out", store=tmp_path / "store")
    message = str(error.value)
    assert "index.invalid/simple" in message
    assert not [
        part for part in [password, "user", *password.replace("@", ":").split(":")] if len(part) > 1 and part in message
    ]


def test_the_exit_code_is_reported_when_pip_prints_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(
        module.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 7, "", "")
    )
    with pytest.raises(CheckFailed, match=r"\(exit code 7\)"):
        fetch_wheels([Pin("aaa", "1.0", "0" * 64)], into=tmp_path / "out", store=tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "file", "same"),
    [
        ("b-c", "b_c-1.0-py3-none-any.whl", True),
        ("B.C", "b_c-1.0-py2.py3-none-any.whl", True),
        ("b-c", "B_C-1.0-py3-none-any.whl", True),
        ("b-c", "b_c-1.0.1-py3-none-any.whl", False),
        ("b-c", "b-1.0-py3-none-any.whl", False),
        ("b-c", "b_c-1.0-cp311-cp311-any.whl", False),
        ("b-c", "b_c-1.0.tar.gz", False),
        ("b-c", "x-none-any.whl", False),
    ],
)
def test_a_wheel_is_recognised_by_its_name(name, file, same):
    assert Pin(name, "1.0", "").is_wheel(file) is same


def test_the_lock_is_read_line_by_line(tmp_path):
    lock = tmp_path / "sample.lock"
    lock.write_text(
        f"# comment\n\n  a-b.c_d==1.0.post1 --hash=sha256:{'0' * 64}  \r\nz==1!2+local --hash=sha256:{'f' * 64}"
    )
    assert read_pins(lock) == [Pin("a-b.c_d", "1.0.post1", "0" * 64), Pin("z", "1!2+local", "f" * 64)]


@pytest.mark.shipped
def test_the_lock_of_the_sample_is_read(repository):
    assert len(read_pins(repository / "data/sample.lock")) > 20


HASH = "0" * 64


@pytest.mark.parametrize(
    "line",
    [
        "aaa",
        "aaa==1.0",
        f"aaa>=1.0 --hash=sha256:{HASH}",
        f"aaa==1.0 --hash=md5:{HASH}",
        f"aaa==1.0 --hash=sha256:{HASH[1:]}",
        f"--index-url=x==1 --hash=sha256:{HASH}",
        f"aaa==1.0 --hash=sha256:{HASH} --hash=sha256:{HASH}",
        f"aaa @ file:x --hash=sha256:{HASH}",
        f"aaa==1.0 --hash=sha256:{HASH.replace('0', 'A')}",
        "-r other.txt",
        f"a/../b==1 --hash=sha256:{HASH}",
    ],
)
def test_a_line_that_pins_nothing_is_named(tmp_path, line):
    lock = tmp_path / "sample.lock"
    lock.write_text(f"# one\naaa==1.0 --hash=sha256:{HASH}\n{line}\n")
    with pytest.raises(
        UserError, match=r"sample\.lock:3: expected a line `name==version --hash=sha256:<64 hex digits>`$"
    ):
        read_pins(lock)


def test_an_empty_lock_is_reported(tmp_path):
    (tmp_path / "sample.lock").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"sample\.lock pins nothing; set fetch\.sample to false"):
        read_pins(tmp_path / "sample.lock")
