"""Files of programming tasks, in the formats of HumanEval and MBPP: what is read, and one line for each mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.errors import UserError
from codex_ml.evaluate.benchmark_files import read_tasks

HUMAN: dict[str, Any] = {
    "task_id": "own/0",
    "prompt": 'def clamp(value, low, high):\n    """Limit a value to a range."""\n',
    "entry_point": "clamp",
    "canonical_solution": "    return max(low, min(value, high))\n",
    "test": "def check(candidate):\n    assert candidate(7, 0, 5) == 5\n",
}
BASIC: dict[str, Any] = {
    "task_id": 11,
    "text": "Write a function to reverse a text.",
    "code": "import re\r\ndef turned(text):\r\n    return helper(text)\r\ndef helper(text):\r\n    return text[::-1]\r\n",
    "test_list": ["assert turned('ab') == 'ba'", "assert turned('') == ''"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def written(folder: Path, *records: Any, name: str = "own.jsonl") -> Path:
    lines = "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    file = folder / name
    file.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return file


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_a_task_of_human_eval_continues_its_prompt(tmp_path: Path, name: str) -> None:
    [task] = read_tasks(written(tmp_path, HUMAN, "", name=name))
    assert (task.task_id, task.form, task.entry_points) == ("own/0", "HumanEval", ("clamp",))
    assert task.prompt == task.before == HUMAN["prompt"]
    assert task.reference == HUMAN["canonical_solution"]
    trial = task.reference_trial
    assert trial.setup == trial.solution == HUMAN["prompt"] + HUMAN["canonical_solution"]
    assert trial.tests == HUMAN["test"] + "\n\ncheck(clamp)\n"


def test_a_task_of_mbpp_is_a_docstring_and_its_program_stands_alone(tmp_path: Path) -> None:
    [task] = read_tasks(written(tmp_path, BASIC))
    assert (task.task_id, task.form, task.entry_points, task.before) == ("11", "MBPP", ("turned",), "")
    assert task.prompt == (
        "\"\"\"\nWrite a function to reverse a text.\nassert turned('ab') == 'ba'\nassert turned('') == ''\n\"\"\"\n"
    )
    assert task.reference == BASIC["code"].replace("\r\n", "\n")
    assert task.tests == "assert turned('ab') == 'ba'\nassert turned('') == ''\n"


def test_the_sanitised_form_of_mbpp_has_prompt_and_imports(tmp_path: Path) -> None:
    record = {key: value for key, value in BASIC.items() if key not in ("text", "test_setup_code")}
    [task] = read_tasks(
        written(tmp_path, record | {"prompt": "Reverse.", "test_imports": ["import math", "import re"]})
    )
    assert task.setup == "import math\nimport re\n"
    assert task.prompt.startswith('"""\nReverse.\n')


def test_what_the_tests_use_of_the_solution_is_an_entry_point(tmp_path: Path) -> None:
    code = "class Box:\n    pass\nLIMIT = 3\ndef f(x):\n    return x\ndef unused():\n    pass\n"
    record = BASIC | {"code": code, "test_list": ["assert f(LIMIT) == 3 and isinstance(Box(), Box)"]}
    assert read_tasks(written(tmp_path, record))[0].entry_points == ("Box", "f", "LIMIT")


def test_equal_tasks_have_equal_content_whatever_their_name(tmp_path: Path) -> None:
    one, two, three = read_tasks(
        written(
            tmp_path, HUMAN, HUMAN | {"task_id": "own/1"}, HUMAN | {"task_id": "own/2", "test": HUMAN["test"] + " "}
        )
    )
    assert one.content == two.content != three.content


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


BAD: list[tuple[list[Any], str]] = [
    ([], " has no tasks; evaluate.benchmarks takes files in the format of HumanEval or MBPP"),
    ([HUMAN, HUMAN], ":2: the task 'own/0' is in line 1 too; remove one of them"),
    ([HUMAN, BASIC | {"task_id": "own/0"}], ":2: the field prompt is missing; found challenge_test_list, code, "),
    ([HUMAN, "{"], ":2: not a JSON object ("),
    ([HUMAN, "[1]"], ":2: not a JSON object (a JSON list)"),
    ([HUMAN, '{"task_id": NaN}'], ":2: not a JSON object ("),
    ([HUMAN, json.dumps(HUMAN)[:-1] + ', "test": ""}'], ":2: not a JSON object (the key 'test'"),
    (
        [{"question": "?"}],
        ":1: neither the format of HumanEval (task_id, prompt, entry_point, canonical_solution, test)",
    ),
    ([{}], ":1: neither the format of HumanEval"),
    *(([without(HUMAN, name)], f":1: the field {name} is missing; found ") for name in HUMAN if name != "test"),
    ([without(HUMAN, "test")], ":1: the field test is missing; found "),
    ([HUMAN | {"task_id": True}], ":1: task_id must be a text or a whole number, found true or false"),
    ([HUMAN | {"task_id": ""}], ":1: task_id must be a text or a whole number, found an empty text"),
    ([HUMAN | {"prompt": 3}], ":1: prompt must be a text, found a number"),
    ([HUMAN | {"test": None}], ":1: test must be a text, found null"),
    ([HUMAN | {"canonical_solution": " \n"}], ":1: canonical_solution is empty"),
    ([HUMAN | {"prompt": "\ud800"}], ":1: prompt holds a lone surrogate, which is not text"),
    ([HUMAN | {"entry_point": "f); evil("}], ":1: entry_point must be the name of a function, found 'f); evil('"),
    ([without(BASIC, "text")], ":1: the field prompt is missing"),
    ([without(BASIC, "code")], ":1: the field code is missing"),
    ([without(BASIC, "test_list")], ":1: the field test_list is missing"),
    ([BASIC | {"test_list": []}], ":1: test_list is empty, so nothing would judge a solution"),
    ([BASIC | {"test_list": "assert turned('') == ''"}], ":1: test_list must be a list of texts, found a text"),
    (
        [BASIC | {"test_list": ["assert turned", 1]}],
        ":1: test_list must be a list of texts, found a list with a number",
    ),
    ([BASIC | {"test_list": ["assert other() == 1"]}], ":1: test_list uses no function that code defines"),
    ([BASIC | {"code": "def f(:"}], ":1: code is not Python (invalid syntax"),
    ([BASIC | {"code": "x = " + "(" * 300}], ":1: code is not Python ("),
    ([BASIC | {"test_list": ["assert ("]}], ":1: test_list is not Python ("),
]


@pytest.mark.parametrize(("records", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_a_wrong_file_is_one_line_with_its_place(tmp_path: Path, records: list[Any], message: str) -> None:
    file = written(tmp_path, *records)
    with pytest.raises(UserError) as error:
        read_tasks(file)
    assert str(error.value).startswith(f"{file}{message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is not a file; evaluate\.benchmarks takes a file in JSON Lines$"):
        read_tasks(tmp_path / name)


def test_a_damaged_gzip_file_is_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, HUMAN, name="own.jsonl.gz")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"own\.jsonl\.gz:\d+: damaged gzip file"):
        read_tasks(file)


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codex_ml.core.object_lines.LONGEST_LINE", 1 << 20)
    file = written(tmp_path, HUMAN | {"test": "#" * (1 << 20)}, name="own.jsonl.gz")
    with pytest.raises(UserError, match=r"own\.jsonl\.gz:1: the line is longer than 1 MiB; split the file$"):
        read_tasks(file)
