"""A few mutated inputs of each kind, and faults that the harness must see; `make fuzz` reads as many as there is time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codex_ml.core.errors import UserError

from . import attempt as attempts
from . import driver
from .attempt import Tally, attempt, data_of
from .kind import Kind
from .kinds import KINDS, kind_named
from .tokenizer_kinds import SameProcess

SEED = 18
ENOUGH = {"template": 12, "config": 12, "tokenizer": 12, "sentencepiece": 12}


@pytest.fixture
def in_this_process(monkeypatch):
    """What `kind_named` sets for its own process is undone after the test."""
    from codex_ml.tokenizer import local_tokenizer
    from codex_ml.tokens import confined_tokenizer

    for module in (local_tokenizer, confined_tokenizer):
        monkeypatch.setattr(module, "LimitedChild", SameProcess)
    monkeypatch.setattr(local_tokenizer, "PROBES", local_tokenizer.PROBES)


@pytest.mark.parametrize("name", KINDS)
def test_mutated_inputs_are_accepted_or_refused_in_one_line(in_this_process, tmp_path, name):
    seeds, folder = tmp_path / "seeds", tmp_path / "input"
    seeds.mkdir()
    folder.mkdir()
    kind, tally, count = kind_named(name, seeds), Tally(), ENOUGH.get(name, 40)
    attempt(kind, kind.valid, 0, folder, tally)
    assert (tally.accepted, tally.faults) == (1, []), "the input without a change is accepted"
    for number in range(1, count + 1):
        attempt(kind, data_of(kind, name, SEED, number), number, folder, tally)
    assert tally.faults == []
    assert tally.done == count + 1 and tally.refused > 0


def test_the_same_seed_gives_the_same_inputs(tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        kind = kind_named("gguf", tmp_path / name)
        made.append([data_of(kind, "gguf", SEED, number) for number in (5, 3, 4)])
        made.append([data_of(kind, "gguf", SEED + 1, number) for number in (5, 3, 4)])
    assert made[0] == made[2] != made[1] == made[3]


def refuse(file):
    raise UserError("no")


def two_lines(file):
    raise UserError("a\nb")


def crash(file):
    raise KeyError("a")


def leave(file):
    return file.with_name("left").write_text("") == 0


def hang(file):
    while True:
        pass


def take(file):
    return len(bytearray(80 << 20)) > 0


@pytest.mark.parametrize(
    ("read", "what"),
    [(two_lines, "a message that is no line"), (crash, "KeyError"), (leave, "left over"), (hang, "TimeoutError"), (take, "memory")],
)  # fmt: skip
def test_a_fault_of_each_sort_is_seen(tmp_path, monkeypatch, read, what):
    monkeypatch.setattr(attempts, "SECONDS", 0.2 if read is hang else 60)
    monkeypatch.setattr(attempts, "MEMORY", 64 << 20)
    tally = Tally()
    attempt(Kind("a", b"", lambda rng: b"", refuse), b"x", 1, tmp_path, tally)
    assert (tally.refused, tally.faults) == (1, [])
    attempt(Kind("a", b"", lambda rng: b"", read), b"x", 2, tmp_path, tally)
    assert [(fault.number, fault.what) for fault in tally.faults] == [(2, what)]
    assert list(tmp_path.iterdir()) == []


def test_the_driver_reads_in_a_process_per_kind_and_keeps_what_failed(tmp_path, monkeypatch, capsys):
    assert driver.main(["--minutes", "1", "--mutations", "30", "--seed", "3", "--kinds", "gguf", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("seed 3: 1 kinds, 1 minutes")
    done = int(next(line for line in printed.splitlines() if line.startswith("all ")).split()[1].replace(",", ""))
    assert done >= 30

    monkeypatch.setattr(driver, "STORE", tmp_path)
    (tmp_path / "gguf.at").write_bytes((7).to_bytes(8, "little"))
    worker = driver.Worker("gguf", 3, tmp_path, number=5)
    worker.process = subprocess.Popen(
        [sys.executable, "-c", "import os; os.abort()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker.turn(1)
    [fault] = worker.tally.faults
    assert (fault.number, fault.what, worker.tally.refused, worker.number) == (7, "the process ended (SIGABRT)", 2, 8)
    kind = kind_named("gguf", tmp_path)
    assert (tmp_path / "gguf-3-7.input").read_bytes() == data_of(kind, "gguf", 3, 7)
    assert driver.replay(tmp_path / "gguf-3-7.input") == 0
    assert "gguf of seed 3: " in capsys.readouterr().out
