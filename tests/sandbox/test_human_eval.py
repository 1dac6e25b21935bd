"""HumanEval's own solutions pass apart from its tests, and solutions that do nothing pass none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from codex_ml.sandbox.judge import choose_oracles, run_trials
from codex_ml.sandbox.ladder import open_sandbox
from codex_ml.sandbox.trial import ProgramLimits, Trial, Verdict

FILE = "data/benchmarks/sample/HumanEval.jsonl.gz"
pytestmark = pytest.mark.shipped


def trial(task: dict[str, Any], completion: str) -> Trial:
    reference = task["prompt"] + task["canonical_solution"]
    tests = f"{task['test']}\ncheck({task['entry_point']})\n"
    return Trial(reference, task["prompt"] + completion, tests, (task["entry_point"],))


@pytest.fixture
def tasks(repository: Path) -> list[dict[str, Any]]:
    file = repository / FILE
    if not file.is_file():
        pytest.skip(f"{FILE} is not here; `dvc repro fetch` downloads it")
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_all_reference_solutions_pass_apart(tasks: list[dict[str, Any]]) -> None:
    references = [trial(task, task["canonical_solution"]) for task in tasks]
    oracles = choose_oracles(open_sandbox(), references, limits=ProgramLimits(), workers=2)
    assert oracles == ["apart"] * 164


def test_no_task_is_passed_by_a_solution_that_returns_nothing(tasks: list[dict[str, Any]]) -> None:
    trials = [trial(task, "    return None\n") for task in tasks]
    outcomes = run_trials(open_sandbox(), trials, limits=ProgramLimits(), workers=2)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.WRONG}
