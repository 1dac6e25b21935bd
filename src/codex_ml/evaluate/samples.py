"""Programs that a model wrote for the tasks of a benchmark: generated here, or read from a file.

Used by: the task `code` of evaluate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.core.errors import UserError
from codex_ml.core.object_lines import object_lines
from codex_ml.evaluate.benchmark_files import STOP, CodeTask
from codex_ml.evaluate.config import Code
from codex_ml.evaluate.job import Subject
from codex_ml.evaluate.programs import CodeProtocol

if TYPE_CHECKING:
    from codex_ml.inference.generation import Prompt

SHOWN = 3  # tasks that a message names


@dataclass(frozen=True, slots=True)
class TaskSample:
    """What a model wrote about a task.

    Attributes:
        number: of the samples of this task, from 0.
        finished: end, stop or length; "file" for a sample of a file.
        cut_prompt: whether the model saw only the end of the prompt.
    """

    task: CodeTask
    number: int
    completion: str
    finished: str
    cut_prompt: bool


def generated(
    subject: Subject, tasks: Sequence[CodeTask], settings: Code, *, name: str, seed: int, batch_size: int
) -> Iterator[TaskSample]:
    """Yield `settings.samples` texts per task, task by task. They depend on (seed, benchmark, task, number) only.

    Raises:
        UserError: when the model cannot see a prompt and `max_tokens` at once; in the protocol `chat` without a chat
            template.
    """
    from codex_ml.inference.generation import generate
    from codex_ml.inference.sampling import Sampling

    wanted = [(task, number) for task in tasks for number in range(settings.samples)]
    stop = STOP[tasks[0].form] if settings.protocol == "base" else ()
    sampling = Sampling(settings.max_tokens, settings.temperature, top_p=settings.top_p, stop=stop)
    prompts = _prompts(subject, tasks, settings.samples, settings.protocol, name)
    texts = generate(subject.model, subject.tokenizer, prompts, sampling, seed=seed, batch_size=batch_size)
    for (task, number), text in zip(wanted, texts, strict=True):
        yield TaskSample(task, number, text.text, text.finished, text.cut_prompt)


def _prompts(
    subject: Subject, tasks: Sequence[CodeTask], samples: int, protocol: CodeProtocol, name: str
) -> Iterator[Prompt]:
    import numpy as np

    from codex_ml.inference.generation import Prompt
    from codex_ml.tokens.chat import encode_prompt, turn_ends

    tokenizer = subject.tokenizer
    if protocol == "chat" and tokenizer.chat_template is None:
        raise UserError(
            "evaluate.code.protocol chat needs a chat template, and the model's tokenizer has none; use base"
        )
    ends = tuple(turn_ends(tokenizer)) if protocol == "chat" else ()
    for task in tasks:
        if protocol == "chat":
            ids = encode_prompt(tokenizer, [{"role": "user", "content": task.question}])
        else:
            ids = np.concatenate([[tokenizer.begin], tokenizer.encode(task.prompt)])
        for number in range(samples):
            yield Prompt(ids, key=f"{name}/{task.task_id}", sample=number, ends=ends)


@dataclass(frozen=True)
class SampleFile:
    """The samples of a file, by task.

    Attributes:
        completions: task id -> completions, in the order of the file; only tasks that have one.
        without: ids of tasks that have no sample, in the order of the benchmark.
    """

    completions: dict[str, list[str]]
    without: tuple[str, ...]

    def samples(self, tasks: Sequence[CodeTask]) -> Iterator[TaskSample]:
        """Yield the samples of these tasks, task by task."""
        for task in tasks:
            for number, completion in enumerate(self.completions.get(task.task_id, ())):
                yield TaskSample(task, number, completion, "file", cut_prompt=False)


def read_samples(path: Path, tasks: Sequence[CodeTask], k: Sequence[int]) -> SampleFile:
    """Read samples: JSON Lines with `task_id` and `completion`, as HumanEval's own evaluation takes them.

    Raises:
        UserError: with file and line, for a sample whose task the benchmark does not have, a missing field or a wrong
            type; for a file without samples; where a task has fewer samples than the largest k.
    """
    known = {task.task_id for task in tasks}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line, fields in object_lines(path, key="--samples"):
        for name, kinds in (("task_id", (str, int)), ("completion", (str,))):
            if not isinstance(fields.get(name), kinds) or isinstance(fields.get(name), bool):
                raise UserError(
                    f"{path}:{line}: expected an object with the texts task_id and completion; {name} is "
                    f"{'missing' if name not in fields else 'of another type'}"
                )
        if any(0xD800 <= ord(character) < 0xE000 for character in fields["completion"]):
            raise UserError(f"{path}:{line}: completion holds a lone surrogate, which is not text; remove the sample")
        name = str(fields["task_id"])
        if name not in known:
            raise UserError(f"{path}:{line}: the benchmark has no task {name[:80]!r}; remove the sample")
        found[name].append(fields["completion"])
    if not found:
        raise UserError(f"{path} has no samples; expected one object with task_id and completion per line")
    fewest = min(found, key=lambda name: len(found[name]))
    if len(found[fewest]) < max(k):
        raise UserError(
            f"pass@{max(k)} needs {max(k)} samples per task, and {path} has {len(found[fewest])} of {fewest}; lower "
            "evaluate.code.k"
        )
    return SampleFile(dict(found), tuple(task.task_id for task in tasks if task.task_id not in found))


def named(names: Sequence[str]) -> str:
    """The number of names and the first of them, for messages.

    >>> named(["a", "b", "c", "d"])
    '4 (a, b, c, ...)'
    """
    return f"{len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
