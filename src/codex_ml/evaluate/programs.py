"""Make a whole program from what a model wrote about a task. Used by: the task `code` of evaluate.

Two protocols:

- base: the program is the prompt and the completion, cut before the first stop string. No character is stripped or
  added: indentation decides whether a completion continues the function of the prompt.
- chat: the model answers a question. The program is the first block of the answer that is fenced with ```, or, without
  one, the same as in the base protocol. A block that defines the function anew replaces it in the prompt.

Which protocol made a program is written beside the result, because the same text can pass in one and fail in the other.
"""

from __future__ import annotations

import re
from typing import Literal

from codex_ml.evaluate.benchmark_files import STOP, CodeTask

CodeProtocol = Literal["base", "chat"]
# An opening fence of three or more backticks with an optional language, and the next fence of the same length.
FENCED = re.compile(r"^[ \t]*(`{3,})[^`\n]*\n(.*?)(?:^[ \t]*\1`*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def cut(completion: str, stop: tuple[str, ...]) -> str:
    """The text before the first of the stop strings.

    >>> cut("    return a\\n\\ndef b", ("\\ndef", "\\n#"))
    '    return a\\n'
    """
    places = [place for text in stop if (place := completion.find(text)) >= 0]
    return completion[: min(places)] if places else completion


def program_of(task: CodeTask, completion: str, protocol: CodeProtocol) -> str:
    """The program that is tested.

    Args:
        completion: the text after the prompt (base), or the answer to the question (chat).
    """
    if protocol == "chat" and (block := FENCED.search(completion)):
        return _before(task, block[2]) + block[2]
    return task.before + cut(completion, STOP[task.form])


def first_written_line(before: str, program: str) -> int:
    """Number of the line, from 1, in which a program leaves the text before the completion: the model wrote the rest.

    >>> first_written_line("def f(x):\\n", "def f(x):\\n    return x\\n")
    2
    """
    pairs = enumerate(zip(before, program, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), min(len(before), len(program)))
    return program[:same].replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


def _before(task: CodeTask, block: str) -> str:
    """What comes before a block: the prompt, without its function if the block defines that anew."""
    name = re.escape(task.entry_points[0])
    definition = re.compile(rf"^(?:async[ \t]+)?def[ \t]+{name}\b", re.MULTILINE)
    if not task.before or not definition.search(block):
        return task.before
    own = [match.start() for match in definition.finditer(task.before)]
    return task.before[: own[-1]] if own else task.before
