"""A solution passes when the last test held, and each other end has its own verdict, apart and in one process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.sandbox.judge import choose_oracles, run_trials
from codex_ml.sandbox.ladder import Sandbox
from codex_ml.sandbox.trial import Oracle, Outcome, ProgramLimits, Trial, Verdict
from codex_ml.sandbox.watch import tree
from codex_ml.sandbox.worker import Worker

LIMITS = ProgramLimits(
    cpu_seconds=5, wall_seconds=60, memory_bytes=256 << 20, processes=8, file_bytes=1 << 20, output_bytes=1 << 16
)

# In the manner of HumanEval: a helper of the prompt, a `check` that calls the candidate and the helper.
PROMPT = "def double(x):\n    return 2 * x\n\ndef half(x):\n    '''The inverse of double.'''\n"
CHECK = "def check(candidate):\n    for x in range(5):\n        assert candidate(double(x)) == x\n\ncheck(half)\n"


def human(completion: str, oracle: Oracle = "apart") -> Trial:
    return Trial(PROMPT + "    return x // 2\n", PROMPT + completion, CHECK, ("half",), oracle)


def basic(solution: str, *tests: str, oracle: Oracle = "apart", setup: str = "") -> Trial:
    """In the manner of MBPP: assert lines."""
    return Trial(setup, solution, "\n".join(tests), ("f",), oracle)


def judged(sandbox: Sandbox, *trials: Trial, limits: ProgramLimits = LIMITS) -> list[Outcome]:
    return list(run_trials(sandbox, trials, limits=limits, workers=2))


BOTH = [
    (human("    return x // 2\n"), Verdict.PASSED, ""),
    (human("    return x // 2 + (x == 8)\n"), Verdict.WRONG, "AssertionError"),
    (human("    return None\n"), Verdict.WRONG, "AssertionError"),
    (human("    return x /\n"), Verdict.CRASHED, "SyntaxError: invalid syntax (solution, line 6)"),
    (human("    return y\n"), Verdict.CRASHED, "NameError: name 'y' is not defined"),
    (human("    exit()\n"), Verdict.CRASHED, "NameError: name 'exit' is not defined"),
    (human("    raise SystemExit(0)\n"), Verdict.CRASHED, "SystemExit: 0"),
    (human("    return input()\n"), Verdict.CRASHED, "EOFError: EOF when reading a line"),
    (human("    return bytearray(1 << 40)\n"), Verdict.MEMORY, "MemoryError"),
    (human("    while True: print(x * 99)\n"), Verdict.OUTPUT, "more than 65536 bytes of output"),
    (basic("def f(x): return (x, {x})", "assert f(1) == (1, {1})", "assert f('a') != ['a', {'a'}]"), Verdict.PASSED, ""),
    (basic("def f(x): return [x]", "assert f(1) == (1,), 'it is a tuple'"), Verdict.WRONG, "AssertionError: it is a tuple"),
    (basic("def f(x, *, y=1): return x + y", "assert f(1, y=3) == 4 and f(1) == 2"), Verdict.PASSED, ""),
    (basic("def f(x): raise ValueError('negative')", "try:\n    f(-1)\nexcept ValueError as error:\n    assert str(error)"), Verdict.PASSED, ""),
    (basic("import math\ndef f(x): return math.nan", "assert f(1) != f(1)"), Verdict.PASSED, ""),
    (basic("def f(x): return 2 ** 20_000", "assert f(1) == 2 ** 20_000"), Verdict.PASSED, ""),
    (basic("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "assert f(0) == 1", "assert f(0) == 2"), Verdict.PASSED, ""),
    (basic("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\ndef f(x): return P(x).x", "assert f(3) == 3"), Verdict.PASSED, ""),
    (basic("if __name__ == '__main__':\n    raise SystemExit\ndef f(x): return x", "assert f(3) == 3"), Verdict.PASSED, ""),
]  # fmt: skip


@pytest.mark.parametrize("oracle", ["apart", "in_child"])
def test_each_end_of_a_trial_has_its_verdict(sandbox: Sandbox, oracle: Oracle) -> None:
    trials = [Trial(t.setup, t.solution, t.tests, t.entry_points, oracle) for t, *_ in BOTH]
    outcomes = judged(sandbox, *trials)
    assert outcomes == [Outcome(verdict, detail, oracle) for _, verdict, detail in BOTH]


def test_outcomes_come_in_the_order_of_the_trials_and_no_more_are_taken_than_needed(sandbox: Sandbox) -> None:
    taken = []

    def endless() -> Iterator[Trial]:
        for number in itertools.count():
            taken.append(number)
            yield basic(f"def f(): return {number}", f"assert f() == {number - number % 3}")

    outcomes = run_trials(sandbox, endless(), limits=LIMITS, workers=2)
    found = [next(outcomes).verdict for _ in range(6)]
    outcomes.close()  # type: ignore[attr-defined]
    assert found == [Verdict.PASSED, Verdict.WRONG, Verdict.WRONG] * 2
    assert len(taken) <= 6 + 2 * 4


def test_without_trials_there_are_no_outcomes(sandbox: Sandbox) -> None:
    assert judged(sandbox) == []


def test_a_trial_that_ran_out_of_time_runs_once_more_alone(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    running, seen = [], []
    ask = Worker.ask

    def counted(self: Worker, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        if "solution" not in message:
            return ask(self, message, seconds)
        running.append(message["solution"])
        seen.append((message["solution"], len(running)))
        try:
            return ask(self, message, seconds)
        finally:
            running.remove(message["solution"])

    monkeypatch.setattr(Worker, "ask", counted)
    spin, quick = "def f():\n    while True: pass", "def f(): return 1"
    trials = [basic(text, "assert f() == 1") for text in (quick, spin, quick, quick)]
    outcomes = judged(sandbox, *trials, limits=replace(LIMITS, cpu_seconds=0.3))
    assert [outcome.verdict.value for outcome in outcomes] == ["passed", "time", "passed", "passed"]
    assert outcomes[1].detail == "more than 0.3 s of CPU time"
    assert [text for text, _ in seen].count(spin) == 2
    assert seen[-1] == (spin, 1)


def test_a_program_that_waits_ends_by_the_clock_and_one_that_computes_by_its_cpu_time(sandbox: Sandbox) -> None:
    wait = basic("import time\ndef f(): time.sleep(60)", "f()")
    tests = basic("def f(): return 1", "while f(): pass")
    assert [outcome.detail for outcome in judged(sandbox, wait, limits=replace(LIMITS, wall_seconds=0.5))] == [
        "it did not end within 0.5 s"
    ]
    assert [outcome.detail for outcome in judged(sandbox, tests, limits=replace(LIMITS, cpu_seconds=0.3))] == [
        "more than 0.3 s of CPU time"
    ]


def test_the_reference_says_how_a_task_can_be_judged(sandbox: Sandbox) -> None:
    pair = "class Pair:\n    def __init__(self, x): self.x = x\n"
    references = [
        human("    return x // 2\n"),
        basic(pair + "def f(p): return p.x", "assert f(Pair(3)) == 3", setup=pair),  # an argument that is not plain
        basic("def f(x): return map(str, x)", "assert list(f([1])) == ['1']"),  # a value that is not plain
        basic("def f(x): x.append(1)", "x = []\nf(x)\nassert x == [1]"),  # a result in its argument
        basic("def f(x): return x", "assert f(1) == 2"),
    ]
    assert choose_oracles(sandbox, references, limits=LIMITS, workers=2) == [
        "apart",
        "in_child",
        "in_child",
        "in_child",
        None,
    ]


def test_an_argument_that_is_not_plain_is_wrong_apart(sandbox: Sandbox) -> None:
    (outcome,) = judged(sandbox, basic("def f(x): return 1", "assert f(len) == 1"))
    assert outcome == Outcome(
        Verdict.WRONG, "the tests call it with a value of the type builtin_function_or_method", "apart"
    )


def test_a_setup_that_fails_is_named(sandbox: Sandbox) -> None:
    (outcome,) = judged(sandbox, basic("def f(): return 1", "assert f() == 1", setup="import nothing_like_this"))
    assert outcome.verdict is Verdict.CRASHED
    assert outcome.detail == "the setup of the tests failed: ModuleNotFoundError: No module named 'nothing_like_this'"


def test_a_second_run_gives_the_same_outcomes(sandbox: Sandbox) -> None:
    """Hash order and random numbers do not change between runs, addresses and paths are not quoted."""
    trials = [
        basic("def f(): return list({str(n) for n in range(50)})", "assert False, f()"),
        basic("import random\ndef f(): return random.random()", "assert False, f()"),
        basic("def f(): raise ValueError(object())", "f()"),
        basic("from math import nothing\ndef f(): pass", "f()"),
    ]
    first, second = judged(sandbox, *trials), judged(sandbox, *trials)
    assert first == second
    assert first[1].detail == "AssertionError: 0.8444218515250481"  # of random.seed(0)
    assert first[2].detail == "ValueError: <object object at 0x...>"
    assert first[3].detail.startswith("ImportError: cannot import name 'nothing' from 'math' (")
    assert sys.base_prefix not in first[3].detail


def test_a_supervisor_that_is_killed_is_an_error_and_no_verdict(sandbox: Sandbox) -> None:
    with sandbox.start() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(CheckFailed, match=r"^the sandbox's supervisor ended: it did not answer$"):
            worker.ask({}, 0)


HARNESS = """
import sys
from dataclasses import asdict
from codex_ml.sandbox.ladder import open_sandbox
from codex_ml.sandbox.trial import ProgramLimits
worker = open_sandbox(sys.argv[1]).start()
print(worker.pid, flush=True)
program = "import os, time\\nos.fork()\\nprint('on', flush=True)\\ntime.sleep(600)"
worker.ask({"how": "alone", "solution": program, "limits": asdict(ProgramLimits(wall_seconds=600))}, 600)
"""


def test_when_the_harness_is_killed_nothing_of_it_survives(sandbox: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", HARNESS, sandbox.rung], stdout=subprocess.PIPE) as harness:
        assert harness.stdout
        supervisor = int(harness.stdout.readline())
        expected = 4 if sandbox.rung == "namespaces" else 5  # bwrap is two processes; then the program and its child
        while len(family := [supervisor, *tree(supervisor)]) < expected:
            time.sleep(0.01)
        harness.kill()
    assert_all_end(family)


def test_when_the_supervisor_is_killed_nothing_of_it_survives(sandbox: Sandbox) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HARNESS, sandbox.rung], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as harness:
        assert harness.stdout
        supervisor = int(harness.stdout.readline())
        while len(family := tree(supervisor)) < (3 if sandbox.rung == "namespaces" else 4):
            time.sleep(0.01)
        os.kill(supervisor, signal.SIGKILL)
        assert harness.wait() == 1
    assert_all_end(family)


def assert_all_end(processes: list[int]) -> None:
    left = processes
    for _ in range(1000):
        left = [pid for pid in left if Path(f"/proc/{pid}/stat").exists()]
        if not left:
            break
        time.sleep(0.01)
    assert left == []


def test_a_caller_that_wants_no_more_does_not_wait_for_running_trials(sandbox: Sandbox) -> None:
    sleep = basic("import time\ndef f(): time.sleep(3600)", "f()")
    outcomes = run_trials(
        sandbox,
        [human("    return x // 2\n"), sleep, sleep, sleep, sleep, sleep],
        limits=replace(LIMITS, wall_seconds=3600),
        workers=1,
    )
    assert next(outcomes).verdict is Verdict.PASSED
    outcomes.close()  # type: ignore[attr-defined]


def test_an_error_of_the_caller_ends_the_running_trials(sandbox: Sandbox) -> None:
    def trials() -> Iterator[Trial]:
        yield basic("import time\ndef f(): time.sleep(3600)", "f()")
        raise UserError("no more tasks")

    with pytest.raises(UserError, match="no more tasks"):
        list(run_trials(sandbox, trials(), limits=replace(LIMITS, wall_seconds=3600), workers=1))


RESULT = [
    b"garbage\n" * 9,
    b"[" * 70_000 + b"\n",
    b"x" * 200_000,
    b'{"dict": [["error", "stop"]]}\n',
    b'{"dict": [["verdict", "passed"], ["detail", ""]]}\n',
    b'{"dict": [["verdict", ["wrong"]], ["detail", 7]]}\n',
    b'{"dict": [["started", true]]}\n' * 3,
    b'{"dict": [["nonce", ""]]}\n',
]  # fmt: skip


def test_a_program_in_one_process_with_its_tests_cannot_stop_the_harness_by_a_false_word(sandbox: Sandbox) -> None:
    trials = [basic(f"import os\nos.write(5, {word!r})\nos._exit(0)", "f()", oracle="in_child") for word in RESULT]
    outcomes = judged(sandbox, *trials)
    assert {(outcome.verdict, outcome.detail) for outcome in outcomes} == {
        (Verdict.CRASHED, "it ended before the last test")
    }


def test_the_detail_is_one_line_that_any_file_can_hold(sandbox: Sandbox) -> None:
    long = basic("def f(): raise type('A\\n' * 300_000, (Exception,), {})('b\\n' * 300_000)", "f()")
    odd = basic("def f(): raise ValueError('\\ud800 \\x1b[2J \\u202e')", "f()")
    for oracle in ("apart", "in_child"):
        first, second = judged(sandbox, replace(long, oracle=oracle), replace(odd, oracle=oracle))
        assert first.verdict is second.verdict is Verdict.CRASHED
        assert first.detail.startswith("A A A")
        assert len(first.detail) <= 300
        assert second.detail == "ValueError: \\ud800 \\x1b[2J \\u202e"


# What programs of benchmarks use of the standard library; each f returns True.
HONEST = """
def f():
    import asyncio
    async def two(): return 2
    return asyncio.run(two()) == 2

def f():
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as pool: return list(pool.map(abs, [-1, 2])) == [1, 2]

def f():
    import tempfile
    with tempfile.TemporaryFile() as file: return file.write(b"abc") == 3

def f():
    import sqlite3
    return sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)

def f():
    import hashlib, hmac, zlib
    return hashlib.md5(b"").hexdigest() == "d41d8cd98f00b204e9800998ecf8427e"

def f():
    import secrets, uuid
    return len(uuid.uuid4().hex) == len(secrets.token_hex(16)) == 32

def f():
    import datetime, decimal, fractions, statistics
    return decimal.Decimal("0.1") + decimal.Decimal("0.2") == decimal.Decimal("0.3")

def f():
    import os
    read, write = os.pipe()
    if not os.fork():
        os.write(write, b"child")
        os._exit(0)
    os.wait()
    return os.read(read, 9) == b"child"

def f():
    import ctypes, lzma, bz2, ssl, unicodedata
    return unicodedata.name("\u00e9") == "LATIN SMALL LETTER E WITH ACUTE"

def f():
    import os
    return dict(os.environ) == {} and os.getenv("PYTHONHASHSEED") is None

def f():
    with open("note.txt", "w") as file: file.write("\u00e9")
    return open("note.txt").read() == "\u00e9"

def f():
    import subprocess, sys
    return subprocess.run([sys.executable, "-c", "print(42)"], capture_output=True).stdout == b"42\\n"
"""


def test_honest_programs_find_the_standard_library(sandbox: Sandbox) -> None:
    programs = [f"def f():{body}" for body in HONEST.split("def f():")[1:]]
    assert len(programs) == 12
    outcomes = judged(sandbox, *(basic(program, "assert f() is True") for program in programs))
    assert [(outcome.verdict, outcome.detail) for outcome in outcomes] == [(Verdict.PASSED, "")] * 12


def test_programs_start_also_after_the_machine_has_replaced_a_file_that_they_are_shown(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """As `ldconfig` replaces /etc/ld.so.cache when a package is installed during a long evaluation."""
    tmp_path.chmod(0o755)
    shown = tmp_path / "cache"
    shown.write_text("old")
    shown.chmod(0o644)
    binds = (*sandbox.inventory.binds, (str(shown), "/etc/replaced"))
    changed = replace(sandbox, inventory=replace(sandbox.inventory, binds=binds))
    trial = basic("def f(): return open('/etc/replaced').read()", "assert f() in ('old', 'new')")

    def trials() -> Iterator[Trial]:
        for _ in range(4):
            yield trial
            (tmp_path / "next").write_text("new")
            (tmp_path / "next").chmod(0o644)
            (tmp_path / "next").replace(shown)

    assert [outcome.verdict for outcome in run_trials(changed, trials(), limits=LIMITS, workers=1)] == [
        Verdict.PASSED
    ] * 4
