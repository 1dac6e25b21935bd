"""Contract of the file in which `evaluate` lists the programs that a model wrote.

Used by: evaluate, which writes it, safety_audit and report.
"""

from __future__ import annotations

from codex_ml.core.contract import Contract

SAMPLES = "code_samples.ndjson"  # in the folder of tables of a result


class JudgedSample(Contract):
    """One line: a program that a model wrote for a task, and what became of it.

    Attributes:
        sample: number of the sample of this task, from 0.
        verdict: passed, wrong, crashed, time, memory or output.
        detail: why, in one line; redacted.
        parsed: whether the whole program is Python.
        finished: end, stop or length, as in `inference.generation.Generation`; "file" for a sample of a file.
        cut_prompt: whether the model saw only the end of the prompt.
        completion: the text that the model wrote; redacted.
        program: what ran, without the tests; redacted.
        begin: its first line that the model wrote, from 1.
    """

    written_by = "evaluate"

    benchmark: str
    task: str
    sample: int
    verdict: str
    detail: str
    parsed: bool
    finished: str
    cut_prompt: bool
    completion: str
    program: str
    begin: int
