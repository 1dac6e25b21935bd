"""A program is the prompt and the completion, cut at a stop string and otherwise unchanged, or a fenced answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from codex_ml.evaluate.benchmark_files import CodeTask, read_tasks
from codex_ml.evaluate.programs import CodeProtocol, cut, first_written_line, program_of
from codex_ml.sandbox.judge import run_trials
from codex_ml.sandbox.ladder import open_sandbox
from codex_ml.sandbox.trial import ProgramLimits

PROMPT = 'def clamp(value, low, high):\n    """Limit a value to a range."""\n'
BODY = "    return max(low, min(value, high))\n"
WHOLE = f"def clamp(value, low, high):\n{BODY}"
COMPLETIONS = {
    "indented": BODY,
    "the whole function": WHOLE,
    "the prompt again": PROMPT + BODY,
    "a call and chatter after it": f"{BODY}\nprint(clamp(7, 0, 5))\nThis limits the value.\n",
    "cut off in the next function": f"{BODY}\ndef unfinished(value, ",
    "line ends of Windows": BODY.replace("\n", "\r\n"),
    "stripped": BODY.strip(),
    "fenced": f"Here it is:\n\n```python\n{WHOLE}```\nIt limits the value.\n",
    "a tab": "\treturn max(low, min(value, high))\n",
    "empty": "",
}
IN_BASE = tuple(COMPLETIONS)[:6]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> CodeTask:
    file = tmp_path_factory.mktemp("tasks") / "own.jsonl"
    record = {"task_id": "own/0", "prompt": PROMPT, "canonical_solution": BODY, "entry_point": "clamp"}
    tests = "def check(candidate):\n    assert [candidate(x, 0, 5) for x in (-1, 3, 7)] == [0, 3, 5]\n"
    file.write_text(json.dumps(record | {"test": tests}) + "\n")
    [found] = read_tasks(file)
    return found


@pytest.mark.parametrize(("protocol", "passing"), [("base", IN_BASE), ("chat", (*IN_BASE, "fenced"))])
def test_six_forms_of_a_completion_pass_in_the_base_protocol_and_a_fenced_one_as_an_answer_only(
    task: CodeTask, protocol: CodeProtocol, passing: tuple[str, ...]
) -> None:
    trials = [task.trial(program_of(task, text, protocol)) for text in COMPLETIONS.values()]
    outcomes = run_trials(open_sandbox(), trials, limits=ProgramLimits(), workers=2)
    verdicts = dict(zip(COMPLETIONS, (outcome.verdict.value for outcome in outcomes), strict=True))
    assert tuple(name for name, verdict in verdicts.items() if verdict == "passed") == passing
    failing = {name: verdict for name, verdict in verdicts.items() if verdict != "passed"}
    fenced = {"fenced": "crashed"} if protocol == "base" else {}
    assert failing == {"stripped": "crashed", **fenced, "a tab": "crashed", "empty": "wrong"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n\ndef g():", "    return 1\n"),
        ("    return 1\n# done\ndef g():", "    return 1"),
        ("    x = 1\n    # a comment inside\n    return x\n", "    x = 1\n    # a comment inside\n    return x\n"),
        ("def f():\n    pass\nclass A:", "def f():\n    pass"),
        ("\ndef g():", ""),
        ("", ""),
    ],
)
def test_a_completion_ends_before_its_first_stop_string(text: str, kept: str) -> None:
    assert cut(text, ("\nclass", "\ndef", "\n#", "\nif", "\nprint")) == kept


def answered(task: CodeTask, answer: str) -> str:
    return program_of(task, answer, "chat")


def test_an_answer_is_its_first_fenced_block(task: CodeTask) -> None:
    assert answered(task, f"```python\n{WHOLE}```\nor\n```\nother\n```\n") == WHOLE
    assert answered(task, f"1. Do this:\n   ~~~~\n````py\n{WHOLE}\n```\n````") == f"{WHOLE}\n```\n"
    assert answered(task, f"```\n{WHOLE}") == WHOLE, "a block that the limit of tokens cut off"
    assert answered(task, f"``` python\r\n{WHOLE}```") == WHOLE
    assert answered(task, f"Inline ```code``` first.\n```python\n{WHOLE}```") == WHOLE


def test_a_block_without_the_function_continues_the_prompt(task: CodeTask) -> None:
    assert answered(task, f"```python\n{BODY}```") == PROMPT + BODY
    assert answered(task, f"```python\ndef clamped():\n    pass\n{BODY}```").startswith(PROMPT)


def test_a_block_keeps_the_imports_and_helpers_of_the_prompt(task: CodeTask) -> None:
    helper = "import math\n\ndef half(x):\n    return x / 2\n\n"
    longer = replace(task, prompt=helper + PROMPT, before=helper + PROMPT)
    assert answered(longer, f"```python\n{WHOLE}```") == helper + WHOLE
    assert answered(longer, f"```python\nasync def clamp(value, low, high):\n{BODY}```").startswith(
        helper + "async def"
    )


def test_a_long_answer_of_fences_is_read_in_time_of_its_length(task: CodeTask) -> None:
    for text in (
        "`" * 200_000,
        "```\n" * 50_000,
        " " * 200_000 + "```",
        "```" + " " * 200_000,
        "`" * 3 + "\n" + "`" * 200_000,
    ):
        assert isinstance(answered(task, text), str)


def test_a_program_of_mbpp_stands_alone(task: CodeTask) -> None:
    alone = replace(task, form="MBPP", before="")
    assert program_of(alone, f"{WHOLE}\nassert clamp(1, 2, 3) == 2", "base") == WHOLE
    assert answered(alone, f"```python\n{WHOLE}```") == WHOLE


@pytest.mark.parametrize(
    ("before", "program", "line"),
    [
        ("def f():\n", "def f():\n    return 1\n", 2),
        ("def f():\n    ", "def f():\n    return 1\n", 2),
        ("def f():\r\n", "def f():\r\n    return 1\n", 2),
        ("import os\ndef f():\n", "import os\nclass F:\n    pass\n", 2),
        ("", "x = 1\n", 1),
        ("def f():\n", "def f():\n", 2),
    ],
    ids=["base", "in the line", "cr lf", "defined anew", "alone", "nothing"],
)
def test_the_model_wrote_a_program_from_this_line_on(before: str, program: str, line: int) -> None:
    assert first_written_line(before, program) == line
