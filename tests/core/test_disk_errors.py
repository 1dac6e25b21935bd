"""A disk that is full, over quota, read-only or broken is one line with the path, whichever library wrote."""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from codex_ml.core.errors import (
    CheckFailed,
    UserError,
    describe_os_error,
    disk_error,
    disk_error_in,
    one_line_errors,
    writing,
)
from codex_ml.core.io import atomic_file, atomic_folder, write_json

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
SIZE = 300_000  # bytes that each writer below writes at least; the disk takes 64 KiB
BIG = os.urandom(SIZE)
FULL = "the disk is full; free some space and run the same command again"


def plain(path: Path) -> None:
    path.write_bytes(BIG)


def json_lines(path: Path) -> None:
    write_json(path, BIG.hex())


def safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(SIZE)}, path)


def torch_save(path: Path) -> None:
    import torch

    torch.save(torch.zeros(SIZE), path)


def transformers(path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=1000)).save_pretrained(path)


def tokenizers(path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({f"token{n}": n for n in range(SIZE // 10)}, [])).save(str(path))


def sentencepiece(path: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    lines = iter([f"hello world {n} abc" for n in range(20_000)])
    SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(path), vocab_size=8000, hard_vocab_limit=False, minloglevel=2
    )


def parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    with pq.ParquetWriter(path, pa.schema([("a", pa.binary())])) as writer:
        writer.write_table(pa.table({"a": [BIG]}))


def arrow_file(path: Path) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file:
        file.write(BIG)


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", BIG)


def numpy_file(path: Path) -> None:
    np.save(path, np.zeros(SIZE))


def array_file(path: Path) -> None:
    with path.open("wb") as handle:
        np.zeros(SIZE).tofile(handle)


def svg(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.gca().plot(np.random.default_rng(0).random(20_000))
    figure.savefig(path, format="svg")


def csv_file(path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"a": np.random.default_rng(0).random(SIZE)}).to_csv(path)


def yaml_file(path: Path) -> None:
    import yaml

    with path.open("w") as handle:
        yaml.safe_dump(list(range(SIZE // 10)), handle)


def copied(path: Path) -> None:
    shutil.copyfile(source(), path)


def copied_tree(path: Path) -> None:
    shutil.copytree(source().parent, path)


def source() -> Path:
    """A large file on another disk."""
    folder = Path("source")
    folder.mkdir(exist_ok=True)
    if not (folder / "big").exists():
        (folder / "big").write_bytes(BIG)
    return folder / "big"


WRITERS = (
    plain, json_lines, safetensors, torch_save, transformers, tokenizers, sentencepiece, parquet, arrow_file, zip_file,
    numpy_file, array_file, svg, csv_file, yaml_file, copied, copied_tree,
)  # fmt: skip
# They keep the number of the error to themselves. That a disk is full can be seen; a limit of the process cannot.
SILENT = (torch_save, sentencepiece, numpy_file, array_file)


@pytest.fixture(scope="module")
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a file system of 64 KiB cannot be mounted here: {done.stderr.strip()}")
    yield folder
    gc.collect()  # closes what a library left open when its write failed; an open file keeps the disk busy
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line_of(capsys: pytest.CaptureFixture[str], act: Callable[[], None]) -> str:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        act()
    assert ended.value.code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("error: ")


def write_folder(write: Callable[[Path], None], folder: Path) -> None:
    with atomic_folder(folder) as new:
        write(new / "out")


@pytest.fixture(scope="module", autouse=True)
def quick_collection() -> Iterator[None]:
    """Collections look at the objects of this module only, not at those of every library that is loaded."""
    import matplotlib.pyplot  # noqa: F401
    import sentencepiece  # noqa: F401
    import torch  # noqa: F401
    import transformers.modeling_utils  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ZipFile.__del__ closes once more
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_full_disk_is_one_line_with_the_path_and_the_old_result_stays(tiny_disk, capsys, write):
    target = tiny_disk / "result"
    gc.collect()  # a writer that failed may hold its deleted file, and with it the space
    with atomic_folder(target) as old:
        (old / "kept").write_bytes(b"of the run before")
    line = line_of(capsys, lambda: write_folder(write, target))
    assert line in {f"{FULL} ({target})", f"{FULL} ({target}/out)", f"{FULL} ({target}/out/big)"}
    assert [file.name for file in tiny_disk.iterdir()] == ["result"]
    assert (target / "kept").read_bytes() == b"of the run before"


def test_full_disk_under_a_single_file(tiny_disk, capsys):
    def write() -> None:
        with atomic_file(tiny_disk / "rows.ndjson") as handle:
            handle.write(BIG)

    before = sorted(tiny_disk.iterdir())
    assert line_of(capsys, write) == f"{FULL} ({tiny_disk}/rows.ndjson)"
    assert sorted(tiny_disk.iterdir()) == before


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB: a real fault of write(2) that needs no privilege."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def big_source() -> None:
    source()


@pytest.mark.usefixtures("big_source", "small_files")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", [write for write in WRITERS if write not in SILENT], ids=lambda write: write.__name__)
def test_limit_of_the_file_size_is_one_line_with_the_path(capsys, write):
    line = line_of(capsys, lambda: write_folder(write, Path("result")))
    assert line.startswith("a file would grow beyond the size limit of this process (ulimit -f) (result")
    assert not list(Path().glob("*result*"))


def rust(number: int) -> Exception:
    from safetensors import SafetensorError

    return SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")


class PanicException(BaseException):
    """As PyO3 raises it: no Exception."""


CARRIERS: dict[str, Callable[[int], BaseException]] = {
    "OSError": lambda number: OSError(number, os.strerror(number)),
    "safetensors": rust,
    "tokenizers": lambda number: Exception(f"{os.strerror(number)} (os error {number})"),
    "a panic": lambda number: PanicException(
        f'called `Result::unwrap()` on an `Err` value: Os {{ code: {number}, message: "{os.strerror(number)}" }}'
    ),
    "pyarrow": lambda number: OSError(
        number, f"Error writing bytes to file. Detail: [errno {number}] {os.strerror(number)}"
    ),
    "arrow without number": lambda number: OSError(f"Error writing. Detail: [errno {number}] {os.strerror(number)}"),
    "a compiler": lambda number: RuntimeError(f"fatal error: error writing to /tmp/x.s: {os.strerror(number)}"),
    "inductor": lambda number: RuntimeError(f"InductorError: OSError: [Errno {number}] {os.strerror(number)}"),
    "shutil": lambda number: shutil.Error([("a", "b", str(OSError(number, os.strerror(number), "a")))]),
}


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_form_of_every_fault_is_recognised(capsys, carrier, number):
    expected = describe_os_error(OSError(number, "", "b" if carrier == "shutil" else "data/corpus"))

    def fail() -> None:
        with writing(Path("data/corpus")):
            raise CARRIERS[carrier](number)

    assert line_of(capsys, fail) == expected


def wrapped(outer: BaseException, inner: BaseException, *, hidden: bool) -> None:
    try:
        raise inner
    except OSError as error:
        raise outer from (None if hidden else error)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("outer", [ValueError("bad file"), UserError("bad file"), CheckFailed("bad file")], ids=repr)
def test_a_library_that_wraps_the_fault_does_not_hide_it(capsys, outer, hidden):
    fault = OSError(errno.EIO, os.strerror(errno.EIO), "models/base/a")
    assert line_of(capsys, lambda: wrapped(outer, fault, hidden=hidden)).endswith("(models/base/a)")


def test_a_copy_names_the_file_that_is_written():
    both = OSError(errno.ENOSPC, "x", "from", None, "to")
    assert disk_error(both).filename == "to"
    assert disk_error(OSError(errno.EIO, "x", "from", None, "to")).filename == "from"
    assert disk_error_in(f"[Errno 28] {os.strerror(28)}: 'from' -> 'to'").filename == "to"
    assert disk_error_in(f"[Errno 28] {os.strerror(28)}: '/tmp/x'").filename == "/tmp/x"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x", "f"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        UserError("data/raw/a.jsonl:3: the text says No space left on device (os error 28)"),
        CheckFailed("it says [Errno 28]"),
        ValueError("[Errno 2] no such file"),
        shutil.SameFileError("same"),
        shutil.Error([("a", "b", "[Errno 13] Permission denied: 'b'")]),
    ],
    ids=repr,
)
def test_what_is_not_a_disk_error_is_not_taken_for_one(error):
    assert disk_error(error) is None
    with pytest.raises(type(error)) as raised, writing(Path("x")):
        raise error
    assert str(error).split(" (")[0] in str(raised.value) or raised.value.filename == "x"


def test_a_mistake_on_a_full_disk_stays_a_mistake(tiny_disk):
    with pytest.raises(UserError, match=r"^no$"), writing(tiny_disk / "full"):
        raise UserError("no")


def test_no_temporary_folder_is_said_as_it_is(capsys):
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    assert line_of(capsys, fail) == "No usable temporary directory found in ['/tmp']"


def test_log_on_a_full_disk_ends_and_the_work_goes_on(tiny_disk, run_python):
    (tiny_disk / "fill").write_bytes(b"x" * 60_000)
    code = (
        "import sys; from codex_ml.core import stage_log\n"
        "stage_log.start_log('pack')\n"
        "for n in range(2000):\n"
        "    stage_log.log.info('line %d %s', n, 'x' * 60)\n"
    )
    try:
        done = run_python("-c", code, cwd=tiny_disk)
    finally:
        shutil.rmtree(tiny_disk / "logs")
        (tiny_disk / "fill").unlink()
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    assert len([line for line in lines if line.startswith("line ")]) == 2000
    assert [line for line in lines if not line.startswith("line ")] == [f"the log logs/pack.ndjson ends here: {FULL}"]


def test_child_processes_report_it_too(monkeypatch, tmp_path):
    """pip, the reader of GGUF files and the trial of a SentencePiece model write in processes of their own."""
    from codex_ml.core.child import LimitedChild
    from codex_ml.fetch import wheels as fetch
    from codex_ml.tokenizer.trials import sentencepiece_trial
    from codex_ml.train.model.gguf_weights import unpack_weights

    said = f"Traceback ...\nOSError: [Errno 28] {os.strerror(28)}\n"
    ended = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(OSError, match="Errno 28") as failed:
        fetch._download([fetch.Pin("a", "1", "0" * 64)], tmp_path)
    assert failed.value.filename == str(tmp_path)

    monkeypatch.setattr(LimitedChild, "_start", lambda child: None)
    answer = f'{{"error": "OSError: [Errno 28] {os.strerror(28)}"}}'
    monkeypatch.setattr(LimitedChild, "_exchange", lambda child, *_: answer)
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))  # version 3, nothing in it
    with pytest.raises(OSError, match="Errno 28"):
        unpack_weights(tmp_path / "a.gguf", tmp_path / "made")

    with pytest.raises(OSError, match="Errno 28") as failed:
        LimitedChild(sentencepiece_trial).ask({"to": "models/tokenizer/tokenizer.json"})
    assert failed.value.filename == "models/tokenizer/tokenizer.json"
