"""The example on data/benchmarks/README.md works as it stands there: in params.yaml, in split and in evaluate."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from codex_ml.cli.checks import preflight
from codex_ml.cli.param_rules import Params, validate_params
from codex_ml.core.yaml import parse_yaml
from codex_ml.evaluate.benchmark_files import read_tasks
from codex_ml.evaluate.config import benchmark_name
from codex_ml.inference.evaluate_files import code_task
from codex_ml.sandbox.judge import choose_oracles
from codex_ml.sandbox.ladder import open_sandbox
from codex_ml.sandbox.trial import ProgramLimits
from codex_ml.split.benchmarks import read_benchmarks

pytestmark = pytest.mark.shipped


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "data/benchmarks/README.md").read_text(encoding="utf-8")


@pytest.fixture
def params(page: str, workspace: Path) -> Params:
    """The parameters of the page, in a repository whose only benchmark is that of the page."""
    [name] = re.findall(r"^`(\S+)` has one task per line", page, re.MULTILINE)
    [lines] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Path(name).write_text(lines, encoding="utf-8")
    return validate_params(parse_yaml(text, "README.md"))


def test_the_entries_of_the_page_name_its_file(page: str, params: Params) -> None:
    assert list(preflight.benchmarks(params)) == []
    [path] = params.evaluate.benchmarks
    assert f"`{code_task(benchmark_name(path))}`" in page


def test_split_finds_the_task_in_a_document(params: Params) -> None:
    task = json.loads(Path(params.evaluate.benchmarks[0]).read_text(encoding="utf-8"))
    [found] = read_benchmarks(params.split.benchmarks).find(f"x = 1\n{task['prompt']}    return number + number\n")
    assert (found.benchmark, found.item) == ("own.jsonl", "own/1")


def test_evaluate_reads_the_task_and_its_reference_passes(params: Params) -> None:
    [task] = read_tasks(Path(params.evaluate.benchmarks[0]))
    assert choose_oracles(open_sandbox(), [task.reference_trial], limits=ProgramLimits()) == ["apart"]
