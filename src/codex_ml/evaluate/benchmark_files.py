"""Read programming tasks: files in HumanEval's format or in MBPP's, JSON Lines, plain or .gz.

HumanEval (Chen et al. 2021, arXiv:2107.03374): `task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`. The
model continues the prompt, which ends inside a function. `test` defines `check`, which gets this function.

MBPP (Austin et al. 2021, arXiv:2108.07732): `task_id`, `text` or `prompt`, `code`, `test_list`, and optionally
`test_setup_code` and `test_imports`. The prompt is the text with the tests as a docstring, and the model writes the
whole program.

Used by: the task `code` of evaluate.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codex_ml.core.errors import UserError
from codex_ml.core.object_lines import object_lines
from codex_ml.sandbox.trial import Trial

Form = Literal["HumanEval", "MBPP"]
KEY = "evaluate.benchmarks"

# A completion is cut before the first of these. HumanEval: as in Chen et al. 2021, section 3.1; MBPP: as in
# bigcode-evaluation-harness.
STOP: dict[Form, tuple[str, ...]] = {
    "HumanEval": ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    "MBPP": ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"),
}


@dataclass(frozen=True, slots=True)
class CodeTask:
    """A programming task.

    Attributes:
        prompt: what the model continues.
        reference: the reference solution: the text after the prompt.
        before: the part of a program before the completion: HumanEval's prompt, nothing for MBPP.
        setup: trusted code that runs before the tests; see `codex_ml.sandbox.trial.Trial`.
        tests: code that raises unless the solution is right.
        entry_points: functions of the solution that the tests call.
        question: the task in words and code, for a chat.
    """

    task_id: str
    form: Form
    prompt: str
    reference: str
    before: str
    setup: str
    tests: str
    entry_points: tuple[str, ...]
    question: str

    @property
    def content(self) -> str:
        """Equal for equal tasks: 16 hexadecimal digits of a hash."""
        text = "\0".join((self.prompt, self.reference, self.setup, self.tests, *self.entry_points))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def trial(self, program: str) -> Trial:
        """The trial of a whole program."""
        return Trial(self.setup, program, self.tests, self.entry_points)

    @property
    def reference_trial(self) -> Trial:
        """The control: the tests must let the reference solution pass."""
        return self.trial(self.before + self.reference)


def read_tasks(path: Path) -> list[CodeTask]:
    """Read a file of tasks, in its order. All tasks have the format of the first one.

    Raises:
        UserError: with file and line, for a line that is not a JSON object, a missing field, a wrong type, a task that
            occurs twice; for a file without tasks or in another format.

    >>> [task.task_id for task in read_tasks(Path("data/benchmarks/sample/HumanEval.jsonl.gz"))]  # doctest: +SKIP
    """
    tasks: list[CodeTask] = []
    lines: dict[str, int] = {}
    read: Callable[[_Record], CodeTask] | None = None
    for line, fields in object_lines(path, key=KEY):
        record = _Record(f"{path}:{line}", fields)
        read = read or _format(record)
        task = read(record)
        if task.task_id in lines:
            raise UserError(
                f"{record.place}: the task {task.task_id!r} is in line {lines[task.task_id]} too; remove one of them"
            )
        lines[task.task_id] = line
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path} has no tasks; {KEY} takes files in the format of HumanEval or MBPP")
    return tasks


@dataclass(frozen=True, slots=True)
class _Record:
    """One line of a file."""

    place: str
    fields: Mapping[str, Any]

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self._value(name)
        if not isinstance(value, str):
            raise UserError(f"{self.place}: {name} must be a text, found {_kind(value)}")
        if not value.strip() and not empty:
            raise UserError(f"{self.place}: {name} is empty")
        if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise UserError(f"{self.place}: {name} holds a lone surrogate, which is not text")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{self.place}: {name} must be a list of texts, found {_kind(value)}")
        return value

    def task_id(self) -> str:
        value = self._value("task_id")
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise UserError(f"{self.place}: task_id must be a text or a whole number, found {_kind(value)}")
        return str(value)

    def _value(self, name: str) -> Any:
        if name not in self.fields:
            raise UserError(
                f"{self.place}: the field {name} is missing; found {', '.join(sorted(self.fields)) or 'none'}"
            )
        return self.fields[name]


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list with {_kind(next((item for item in value if not isinstance(item, str)), ''))}"
    names = {dict: "an object", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "an empty text" if value == "" else names.get(type(value), "null")


def _format(record: _Record) -> Callable[[_Record], CodeTask]:
    if "test" in record.fields or "entry_point" in record.fields:
        return _human_eval
    if "test_list" in record.fields or "code" in record.fields:
        return _mbpp
    raise UserError(
        f"{record.place}: neither the format of HumanEval (task_id, prompt, entry_point, canonical_solution, test) nor "
        f"of MBPP (task_id, text or prompt, code, test_list); found {', '.join(sorted(record.fields)) or 'no field'}"
    )


def _human_eval(record: _Record) -> CodeTask:
    prompt, reference = record.text("prompt"), record.text("canonical_solution")
    name = record.text("entry_point")
    if not name.isidentifier():
        raise UserError(f"{record.place}: entry_point must be the name of a function, found {name[:40]!r}")
    return CodeTask(
        task_id=record.task_id(),
        form="HumanEval",
        prompt=prompt,
        reference=reference,
        before=prompt,
        setup=prompt + reference,
        tests=f"{record.text('test')}\n\ncheck({name})\n",
        entry_points=(name,),
        question=f"Complete this Python function. Write the whole function.\n\n```python\n{prompt.strip()}\n```\n",
    )


def _mbpp(record: _Record) -> CodeTask:
    words, code = record.text("text" if "text" in record.fields else "prompt"), record.text("code")
    tests = record.texts("test_list")
    if not tests:
        raise UserError(f"{record.place}: test_list is empty, so nothing would judge a solution")
    imports = record.texts("test_imports") if "test_imports" in record.fields else []
    setup = record.text("test_setup_code", empty=True) if "test_setup_code" in record.fields else ""
    lines = "\n".join(tests)
    return CodeTask(
        task_id=record.task_id(),
        form="MBPP",
        prompt=f'"""\n{words.strip()}\n{lines}\n"""\n',
        reference=code.replace("\r\n", "\n"),
        before="",
        setup="\n".join([*imports, setup]),
        tests=f"{lines}\n",
        entry_points=_called(record.place, code, lines),
        question=f"{words.strip()}\nWrite Python code that passes these tests:\n\n```python\n{lines}\n```\n",
    )


def _called(place: str, code: str, tests: str) -> tuple[str, ...]:
    """Names that the reference solution defines and the tests use, in the order of their definition."""
    trees = []
    for name, source in (("code", code), ("test_list", tests)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as an invalid escape sequence
                trees.append(ast.parse(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
            raise UserError(f"{place}: {name} is not Python {reason and f'({reason})'}") from None
    solution, asked = trees
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [node.name for node in solution.body if isinstance(node, kinds)]
    for node in solution.body:
        if isinstance(node, ast.Assign):
            defined += [target.id for target in node.targets if isinstance(target, ast.Name)]
    used = {node.id for node in ast.walk(asked) if isinstance(node, ast.Name)}
    names = tuple(dict.fromkeys(name for name in defined if name in used))
    if not names:
        raise UserError(f"{place}: test_list uses no function that code defines, so it judges nothing")
    return names
