"""Executed code: does what a model writes solve the tasks of a benchmark?

Every program runs in the sandbox. First the reference solutions run, as the control: a task whose tests refuse its own
reference is invalid, and is listed and left out instead of counting as wrong.

Used by: evaluate.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from codex_ml.core.cores import cores
from codex_ml.core.csv_file import write_csv
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_file
from codex_ml.core.publication import published
from codex_ml.core.strict_json import ndjson_line
from codex_ml.evaluate.benchmark_files import STOP, CodeTask, read_tasks
from codex_ml.evaluate.config import Code, Evaluate, benchmark_name
from codex_ml.evaluate.evaluation_memory import PROGRAMS
from codex_ml.evaluate.item_tables import ItemTable, write_table
from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.code_metrics import SOLUTION_BITS, VERDICTS, SolvedTask, code_metrics
from codex_ml.evaluate.metrics.python_source import parsed
from codex_ml.evaluate.programs import first_written_line, program_of
from codex_ml.evaluate.samples import SampleFile, TaskSample, generated, named, read_samples
from codex_ml.evaluate.solutions import SolutionScore, solution_scores
from codex_ml.evaluate.summary import metric_value, resampling
from codex_ml.inference.code_files import SAMPLES, JudgedSample
from codex_ml.inference.evaluate_files import CODE, TaskResult, code_task
from codex_ml.policy.redacted_output import redacted_output
from codex_ml.sandbox.judge import choose_oracles, run_trials
from codex_ml.sandbox.ladder import Sandbox, open_sandbox
from codex_ml.sandbox.trial import Oracle, Outcome, ProgramLimits
from codex_ml.statistics.bootstrap import unit_sums

TEXTS = ("benchmark", "content", "oracle")
COUNTS = ("tasks", "programs", *VERDICTS, "parsed", "cut_prompts", "solution_tokens", "solution_nll", "solution_bytes")
LONGEST_PROGRAM = 1 << 18  # characters that are parsed; a syntax tree takes hundreds of bytes per character
CURVE = "pass_at_k.csv"  # in the folder of plots


def code_tasks(job: Job) -> dict[str, TaskResult]:
    """Run what the model writes for each benchmark of `evaluate.benchmarks`, or the programs of `job.data.samples`.

    Raises:
        UserError: for a file of tasks or samples that cannot be used; without a safe sandbox.
    """
    benchmarks, file = open_benchmarks(job.settings, job.data.samples)
    results: dict[str, TaskResult] = {}
    if benchmarks:
        settings = job.settings.code
        sandbox = open_sandbox(settings.sandbox)
        numbers = dict.fromkeys(
            (*COUNTS, *(column for metric in code_metrics(settings.k) for column in metric.columns))
        )
        with ExitStack() as stack:
            table = stack.enter_context(write_table(job.results, CODE, texts=TEXTS, numbers=numbers))
            lines = stack.enter_context(atomic_file(job.results / SAMPLES))
            for name, tasks in benchmarks.items():
                results[code_task(name)] = _Benchmark(job, name, tasks, sandbox, table, lines).result(file)
    _write_pass_at_k(job, results)
    return results


def open_benchmarks(settings: Evaluate, samples: Path | None) -> tuple[dict[str, list[CodeTask]], SampleFile | None]:
    """Read the files of tasks, by their names, and the file of programs to run instead of generated ones.

    Raises:
        UserError: for a file that cannot be used, and for programs that are not for exactly one benchmark.
    """
    benchmarks = {benchmark_name(path): read_tasks(Path(path)) for path in settings.benchmarks}
    if samples is None:
        return benchmarks, None
    if len(benchmarks) != 1:
        raise UserError(f"{samples} needs one benchmark, and evaluate.benchmarks names {len(benchmarks)}; name its own")
    return benchmarks, read_samples(samples, next(iter(benchmarks.values())), settings.code.k)


@dataclass(frozen=True)
class _Benchmark:
    job: Job
    name: str
    tasks: Sequence[CodeTask]
    sandbox: Sandbox
    table: ItemTable
    lines: IO[bytes]

    @property
    def settings(self) -> Code:
        return self.job.settings.code

    @property
    def limits(self) -> ProgramLimits:
        """The wall clock is generous: CPU time decides."""
        seconds = self.settings.cpu_seconds
        return ProgramLimits(seconds, wall_seconds=6 * seconds, memory_bytes=self.settings.memory_mb * 1_000_000)

    def result(self, file: SampleFile | None) -> TaskResult:
        """Judge all samples; write one row per task and one line per sample."""
        references = [task.reference_trial for task in self.tasks]
        found = choose_oracles(self.sandbox, references, limits=self.limits, workers=cores())
        oracles = {task.task_id: oracle for task, oracle in zip(self.tasks, found, strict=True) if oracle}
        valid = [task for task in self.tasks if task.task_id in oracles]
        invalid = [task.task_id for task in self.tasks if task.task_id not in oracles]
        missing = [name for name in file.without if name in oracles] if file else []
        asked = [task for task in valid if task.task_id not in missing]
        if not asked:
            raise UserError(f"no task of {self.name} is left: the tests of {named(invalid)} refuse their own reference")
        scores = dict(zip((task.task_id for task in asked), solution_scores(self.job, asked), strict=True))
        samples = file.samples(asked) if file else self._generated(asked)
        each = [len(file.completions[task.task_id]) if file else self.settings.samples for task in asked]
        rows, content, totals = [], [], Counter[str]()
        judged = self.job.track(self._judged(samples, oracles), f"evaluate {self.name}", sum(each), "programs")
        for task, group in groupby(judged, key=lambda one: one[0].task):
            row = self._row(task, list(group), scores[task.task_id], oracles[task.task_id])
            content.append(task.content)
            totals.update({name: int(row[name]) for name in COUNTS if name not in ("tasks", "solution_nll")})
            rows.append(row)
        totals["in_child"] = sum(oracles[task.task_id] == "in_child" for task in asked)
        notes = list(self._notes(invalid, missing, totals["in_child"]))
        lossy = sum(not score.lossless for score in scores.values())
        units, how, frame = np.array(content), resampling(self.job), pd.DataFrame(rows)
        values = {
            metric.name: metric_value(
                self.job.metrics,
                metric,
                unit_sums(frame[list(metric.columns)].to_numpy(np.float64), units),
                how,
                _why_no_bits(lossy) if lossy and metric is SOLUTION_BITS else None,
            )
            for metric in code_metrics(self.settings.k)
        }
        return TaskResult(
            task=code_task(self.name),
            items=len(rows),
            units=len(set(content)),
            settings=self._settings(file),
            metrics=values,
            counts={**totals, "invalid": len(invalid), "without_sample": len(missing)},
            notes=notes,
        )

    def _generated(self, tasks: Sequence[CodeTask]) -> Iterator[TaskSample]:
        job = self.job
        batch_size = max(job.settings.batch_size, PROGRAMS)
        return generated(job.subject, tasks, self.settings, name=self.name, seed=job.seed, batch_size=batch_size)

    def _judged(
        self, samples: Iterable[TaskSample], oracles: dict[str, Oracle]
    ) -> Iterator[tuple[TaskSample, str, Outcome]]:
        """Run the program of each sample; yields (sample, program, outcome) in order."""
        waiting: deque[tuple[TaskSample, str]] = deque()

        def trials() -> Iterator[Any]:
            for sample in samples:
                program = program_of(sample.task, sample.completion, self.settings.protocol)
                waiting.append((sample, program))
                yield replace(sample.task.trial(program), oracle=oracles[sample.task.task_id])

        for outcome in run_trials(self.sandbox, trials(), limits=self.limits, workers=cores()):
            yield (*waiting.popleft(), outcome)

    def _row(
        self, task: CodeTask, judged: list[tuple[TaskSample, str, Outcome]], score: SolutionScore, oracle: Oracle
    ) -> dict[str, float]:
        """Write the lines of the samples of one task and its row; return the numbers of the row."""
        redact = self.job.data.redact
        trees = 0
        for sample, program, outcome in judged:
            is_python = len(program) <= LONGEST_PROGRAM and parsed(program) is not None
            trees += is_python
            shown, before = redact(program), redact(task.before)
            line = JudgedSample(
                benchmark=self.name,
                task=task.task_id,
                sample=sample.number,
                verdict=outcome.verdict.value,
                detail=redact(outcome.detail),
                parsed=is_python,
                finished=sample.finished,
                cut_prompt=sample.cut_prompt,
                completion=redacted_output(redact, task.prompt, sample.completion),
                program=shown,
                begin=first_written_line(before, shown),
            )
            self.lines.write(ndjson_line(published(line.as_json())))
        verdicts = Counter(outcome.verdict.value for _, _, outcome in judged)
        solved = SolvedTask(tuple(verdicts[name] for name in VERDICTS), trees, score.nll, score.bytes)
        row = {
            "tasks": 1.0,
            "programs": solved.programs,
            **{name: verdicts[name] for name in VERDICTS},
            "parsed": trees,
        }
        row |= {"cut_prompts": sum(sample.cut_prompt for sample, _, _ in judged), "solution_tokens": score.tokens}
        for metric in code_metrics(self.settings.k):
            row |= zip(metric.columns, metric.measure(solved), strict=True)
        texts = {"item": task.task_id, "unit": task.content, "benchmark": self.name, "content": task.content}
        self.table.add({**texts, "oracle": oracle}, row)
        return row

    def _settings(self, file: SampleFile | None) -> dict[str, Any]:
        job, code = self.job, self.settings
        generation = {} if file else code.model_dump(include={"samples", "max_tokens", "temperature", "top_p"})
        base = {"stop": list(STOP[self.tasks[0].form])}  # of a fenced answer nothing is cut
        return {
            "format": self.tasks[0].form,
            "protocol": code.protocol,
            **base,
            **generation,
            "cpu_seconds": code.cpu_seconds,
            "memory_mb": code.memory_mb,
            "sandbox": self.sandbox.rung,
            "length": job.subject.length,
            "stride": job.settings.stride or job.subject.length,
            "precision": job.subject.precision,
        }

    def _notes(self, invalid: Sequence[str], missing: Sequence[str], in_child: int) -> Iterator[str]:
        if invalid:
            yield f"left out, because the tests refuse their own reference solution: {', '.join(invalid)}"
        if missing:
            yield f"left out, because the file has no sample of them: {', '.join(missing)}"
        if in_child:
            yield (
                f"{in_child} tasks are judged in one process with the program, because their tests pass values that "
                "are not plain; such a program could forge a pass"
            )


def _why_no_bits(lossy: int) -> str:
    return f"no bits per byte: the tokenizer does not give {lossy} reference solutions back"


def _write_pass_at_k(job: Job, results: dict[str, TaskResult]) -> None:
    """Write plots/pass_at_k.csv: one row per benchmark and k."""
    rows = []
    for task, result in results.items():
        for k in job.settings.code.k:
            value = result.metrics[f"pass_at_{k}"]
            low, high = (math.nan if bound is None else bound for bound in (value.low, value.high))
            rows.append((task.partition("/")[2], k, value.value, low, high, value.units))
    columns = ["benchmark", "k", "pass_at_k", "low", "high", "tasks"]
    write_csv(job.plots / CURVE, columns, rows, number="{:.4f}".format)
