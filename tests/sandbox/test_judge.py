"""A solution passes when the last test held, and each other end has its own verdict, apart and in one process."""

from __future__ import annotations

import pytest

from codex_ml.sandbox.judge import run_trials
from codex_ml.sandbox.ladder import Sandbox
from codex_ml.sandbox.trial import Oracle, Outcome, ProgramLimits, Trial, Verdict

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
