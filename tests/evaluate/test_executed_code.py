"""Executed code: pass@k over tasks with an interval, controls that must pass, and the likelihood of the solutions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.evaluate import executed_code as module
from codex_ml.evaluate.benchmark_files import read_tasks
from codex_ml.evaluate.comparison import CompareSettings, compare_results
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.executed_code import code_tasks
from codex_ml.evaluate.item_tables import write_table
from codex_ml.evaluate.job import EvaluationData, Job, Subject
from codex_ml.evaluate.metrics.code_metrics import SolvedTask, code_metric, pass_metric
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.evaluate.result_folder import ResultFolder
from codex_ml.evaluate.solutions import SolutionScore, solution_scores
from codex_ml.inference.code_files import JudgedSample
from codex_ml.inference.comparison_files import ComparedSide
from codex_ml.inference.evaluate_files import Evaluation, TaskResult
from codex_ml.sandbox.ladder import open_sandbox
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

BENCHMARK = "data/benchmarks/own.jsonl"
SHAPE = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=64)
SECRET = "to" + "ken-1234"


def record(number: int, **changes: Any) -> dict[str, Any]:
    """Task `number`: add this number."""
    return {
        "task_id": f"own/{number}",
        "prompt": f'def add(x):\n    """Add {number} to a number."""\n',
        "entry_point": "add",
        "canonical_solution": f"    return x + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(2) == {number + 2}\n",
        **changes,
    }


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "\n".join(record(number)["prompt"] for number in range(40))
    train_tokenizer(lambda: [text], Tokenizer(vocab_size=300, chat_template="chatml"), folder)
    tokenizer = load_tokenizer(folder)
    model = build_model(SHAPE, vocab_size=tokenizer.vocab_size, end=tokenizer.end, pad=tokenizer.pad, seed=1).eval()
    return Subject(model, tokenizer, length=64, loss_on="completions", precision="fp32", digest="0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path(BENCHMARK).parent.mkdir(parents=True)
    return tmp_path


def write(path: str, records: Iterable[dict[str, Any]]) -> Path:
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")
    return Path(path)


def job_of(subject: Subject, folder: str = "out", *, samples: Path | None = None, **settings: Any) -> Job:
    out = Path(folder)
    for name in ("results", "plots"):
        (out / name).mkdir(parents=True, exist_ok=True)
    chosen = Evaluate.model_validate({"benchmarks": [BENCHMARK], "bootstrap": 100, **settings})
    data = EvaluationData(Path("unused"), None, lambda text: text.replace(SECRET, "<SECRET>"), samples)
    return Job(
        subject, data, chosen, load_metrics(()), 1, out / "results", out / "plots", lambda items, *_: iter(items)
    )


def completion(number: int, text: str) -> dict[str, str]:
    return {"task_id": f"own/{number}", "completion": text}


def lines(folder: str = "out") -> list[JudgedSample]:
    return list(JudgedSample.read_lines(Path(folder, "results/code_samples.ndjson")))


@pytest.fixture(scope="module", autouse=True)
def one_probe() -> Iterator[None]:
    """The sandbox is probed once for this file; tests/sandbox tests the probe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open_sandbox", cache(open_sandbox))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, subject: Subject) -> tuple[Path, TaskResult]:
    """Four samples for each of three tasks, and one task without: the folder and the result."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("judged")
        patch.chdir(folder)
        Path(BENCHMARK).parent.mkdir(parents=True)
        return folder, judged_samples(subject)


@pytest.fixture
def judged(finished: tuple[Path, TaskResult], monkeypatch: pytest.MonkeyPatch) -> TaskResult:
    monkeypatch.chdir(finished[0])
    return finished[1]


def judged_samples(subject: Subject) -> TaskResult:
    write(BENCHMARK, map(record, range(4)))
    right, wrong = "    return x + {}\n", "    return x - 9\n"
    texts = {
        0: [right, right, right, wrong],
        1: [right, wrong, "    return x +\n", f"    raise ValueError('{SECRET}')\n"],
        2: [
            wrong,
            "    while True: pass\n",
            "    return bytearray(1 << 40)\n",
            "    while True: print(x * 'a' * 999)\n",
        ],
    }
    file = write("samples.jsonl", (completion(n, text.format(n)) for n, four in texts.items() for text in four))
    code = {"samples": 4, "temperature": 1, "k": [1, 3], "cpu_seconds": 0.5, "memory_mb": 128}
    return code_tasks(job_of(subject, samples=file, code=code))["code/own"]


def test_pass_at_k_is_the_mean_over_tasks_of_the_unbiased_estimate(judged: TaskResult) -> None:
    """c = 3, 1 and 0 of 4: 1 - C(n-c, k) / C(n, k) = 3/4, 1/4, 0 for k = 1, and 1, 3/4, 0 for k = 3."""
    assert judged.metrics["pass_at_1"].value == pytest.approx(1 / 3, abs=1e-9)
    assert judged.metrics["pass_at_3"].value == pytest.approx(7 / 12, abs=1e-9)
    assert judged.metrics["program_parse_rate"].value == pytest.approx(11 / 12, abs=1e-9)
    assert (judged.items, judged.units) == (3, 3)
    verdicts = {"passed": 4, "wrong": 3, "crashed": 2, "time": 1, "memory": 1, "output": 1}
    assert {name: judged.counts[name] for name in verdicts} == verdicts
    assert judged.notes == ["left out, because the file has no sample of them: own/3"]
    assert judged.counts["without_sample"] == 1
    assert {"samples", "temperature", "max_tokens"} & judged.settings.keys() == set()  # nothing was generated
    assert judged.settings["stop"] == ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
    assert judged.settings["protocol"] == "base"
    assert judged.settings["sandbox"] in ("bwrap-system", "bwrap-wheel", "namespaces")


def test_the_table_has_a_row_per_task_and_the_lines_one_per_sample(judged: TaskResult) -> None:
    table = pd.read_parquet("out/results/code.parquet")
    assert table["item"].tolist() == ["own/0", "own/1", "own/2"]
    assert set(table["benchmark"]) == {"own"} and set(table["oracle"]) == {"apart"}
    assert table["programs"].tolist() == [4, 4, 4] and table["passed"].tolist() == [3, 1, 0]
    assert table["pass_at_3"].tolist() == [1, 0.75, 0]
    assert table["solution_bytes"].tolist() == [len("    return x + 0\n")] * 3
    samples = lines()
    assert [(sample.task, sample.sample) for sample in samples[:5]] == [*[("own/0", n) for n in range(4)], ("own/1", 0)]
    assert [sample.verdict for sample in samples[4:8]] == ["passed", "wrong", "crashed", "crashed"]
    assert [sample.verdict for sample in samples[8:]] == ["wrong", "time", "memory", "output"]
    assert [sample.parsed for sample in samples[4:8]] == [True, True, False, True]
    assert samples[7].detail == "ValueError: <SECRET>"
    assert samples[7].completion == "    raise ValueError('<SECRET>')\n"
    shown = 'def add(x):\n    """Add 1 to a number."""\n    raise ValueError(\'<SECRET>\')\n'
    assert (samples[7].program, samples[7].begin) == (shown, 3)
    assert SECRET not in Path("out/results/code_samples.ndjson").read_text()


def test_the_curve_has_a_row_per_benchmark_and_k(judged: TaskResult) -> None:
    curve = pd.read_csv("out/plots/pass_at_k.csv")
    assert curve.columns.tolist() == ["benchmark", "k", "pass_at_k", "low", "high", "tasks"]
    assert curve[["benchmark", "k", "tasks"]].to_numpy().tolist() == [["own", 1, 3], ["own", 3, 3]]
    assert curve["pass_at_k"].tolist() == [0.3333, 0.5833]


@pytest.fixture(scope="module")
def unsolved(tmp_path_factory: pytest.TempPathFactory, subject: Subject) -> tuple[TaskResult, pd.DataFrame]:
    """Thirty tasks, none of which is solved: the result and its table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("unsolved"))
        Path(BENCHMARK).parent.mkdir(parents=True)
        write(BENCHMARK, map(record, range(30)))
        file = write("samples.jsonl", (completion(number, "    pass\n") for number in range(30)))
        found = code_tasks(job_of(subject, samples=file))["code/own"]
        return found, pd.read_parquet("out/results/code.parquet")


def test_no_solved_task_of_thirty_has_the_exact_binomial_interval(unsolved: tuple[TaskResult, pd.DataFrame]) -> None:
    """Clopper and Pearson: 1 - 0.025^(1/30) = 0.1157 for 0 of 30."""
    value = unsolved[0].metrics["pass_at_1"]
    assert (value.value, value.low, value.units) == (0, 0, 30)
    assert value.high == pytest.approx(1 - 0.025 ** (1 / 30), abs=1e-6)


def test_bits_per_byte_of_the_solutions_is_a_ratio_of_sums(unsolved: tuple[TaskResult, pd.DataFrame]) -> None:
    value, table = unsolved[0].metrics["solution_bits_per_byte"], unsolved[1]
    expected = table["solution_nll"].sum() / math.log(2) / table["solution_bytes"].sum()
    assert value.value == pytest.approx(expected, abs=1e-8)
    assert value.low < value.value < value.high


def test_a_task_whose_tests_refuse_its_reference_is_left_out_and_listed(here: Path, subject: Subject) -> None:
    broken = [record(1, canonical_solution="    return 0\n"), record(2, test="def check(candidate):\n    1 / 0\n")]
    write(BENCHMARK, [record(0), *broken])
    file = write("samples.jsonl", (completion(number, "    return x\n") for number in range(3)))
    found = code_tasks(job_of(subject, samples=file))["code/own"]
    assert (found.metrics["pass_at_1"].value, found.items, found.counts["invalid"]) == (1, 1, 2)
    assert found.notes == ["left out, because the tests refuse their own reference solution: own/1, own/2"]
    assert [sample.task for sample in lines()] == ["own/0"]


def test_a_benchmark_of_invalid_tasks_only_is_one_line(here: Path, subject: Subject) -> None:
    write(BENCHMARK, (record(number, canonical_solution="    return 0\n") for number in range(1, 6)))
    with pytest.raises(
        UserError, match=r"^no task of own is left: the tests of 5 \(own/1, own/2, own/3, \.\.\.\) refuse their own"
    ):
        code_tasks(job_of(subject))
    assert list(Path("out/results").iterdir()) == []


def test_tests_of_values_that_are_not_plain_are_judged_in_one_process_and_said(here: Path, subject: Subject) -> None:
    made = record(
        0,
        canonical_solution="    return (n for n in [x])\n",
        test="def check(candidate):\n    assert next(candidate(2)) == 2\n",
    )
    write(BENCHMARK, [made])
    file = write("samples.jsonl", [completion(0, made["canonical_solution"])])
    found = code_tasks(job_of(subject, samples=file))["code/own"]
    assert (found.metrics["pass_at_1"].value, found.counts["in_child"]) == (1, 1)
    assert found.notes[0].startswith("1 tasks are judged in one process with the program, because their tests pass")


def test_without_benchmarks_nothing_runs_and_the_curve_is_empty(here: Path, subject: Subject) -> None:
    assert code_tasks(job_of(subject, benchmarks=[])) == {}
    assert [file.name for file in Path("out").rglob("*") if file.is_file()] == ["pass_at_k.csv"]
    assert len(pd.read_csv("out/plots/pass_at_k.csv")) == 0


def test_generated_programs_are_the_same_in_any_batch_and_run(here: Path, subject: Subject) -> None:
    write(BENCHMARK, map(record, range(4)))
    code = {"samples": 3, "k": [1, 3], "temperature": 1.0, "max_tokens": 24}
    outs = []
    for folder, batch in (("a", 1), ("b", 64)):
        found = code_tasks(job_of(subject, folder, code=code, batch_size=batch))["code/own"]
        assert (found.counts["programs"], found.items) == (12, 4)
        assert found.settings | {"samples": 3, "temperature": 1.0, "top_p": 1.0, "max_tokens": 24} == found.settings
        outs.append([sample.as_json() for sample in lines(folder)])
    assert outs[0] == outs[1]
    assert len({sample["completion"] for sample in outs[0]}) > 6
    assert {sample["finished"] for sample in outs[0]} <= {"end", "stop", "length"}


def test_a_prompt_that_does_not_fit_is_counted(here: Path, subject: Subject) -> None:
    long = record(1, prompt="# a comment\n" * 60 + record(1)["prompt"])
    write(BENCHMARK, [record(0), long])
    found = code_tasks(job_of(subject, code={"max_tokens": 4}))["code/own"]
    assert found.counts["cut_prompts"] == 1
    assert [sample.cut_prompt for sample in lines()] == [False, True]


def test_the_chat_protocol_asks_through_the_template(here: Path, subject: Subject) -> None:
    write(BENCHMARK, [record(0)])
    found = code_tasks(job_of(subject, code={"protocol": "chat", "max_tokens": 4}))["code/own"]
    assert (found.settings["protocol"], found.counts["programs"]) == ("chat", 1)
    bare = replace(subject, tokenizer=replace(subject.tokenizer, chat_template=None))
    with pytest.raises(
        UserError, match=r"^evaluate\.code\.protocol chat needs a chat template, and the model's tokenizer"
    ):
        code_tasks(job_of(bare, code={"protocol": "chat", "max_tokens": 4}))


def test_solutions_are_scored_after_their_prompt_and_without_the_end(here: Path, subject: Subject) -> None:
    """The same number from the logits of the whole text, summed over the tokens of the solution."""
    tasks = read_tasks(write(BENCHMARK, map(record, range(3))))
    encode, begin = subject.tokenizer.encode, subject.tokenizer.begin
    for task, found in zip(tasks, solution_scores(job_of(subject), tasks), strict=True):
        prompt, solution = encode(task.prompt).tolist(), encode(task.reference).tolist()
        ids = torch.tensor([[begin, *prompt, *solution]])
        with torch.inference_mode():
            lost = -subject.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        assert found.nll == pytest.approx(float(lost[len(prompt) :].sum()), rel=1e-5)
        assert (found.tokens, found.bytes, found.lossless) == (len(solution), len(task.reference), True)


def test_a_tokenizer_that_loses_a_solution_gives_no_bits_per_byte(
    here: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(BENCHMARK, map(record, range(2)))
    file = write("samples.jsonl", [completion(number, "    pass\n") for number in range(2)])
    scores = [SolutionScore(1.0, 1, 1, lossless) for lossless in (True, False)]
    monkeypatch.setattr(module, "solution_scores", lambda *_: iter(scores))
    value = code_tasks(job_of(subject, samples=file))["code/own"].metrics["solution_bits_per_byte"]
    assert (value.value, value.low) == (None, None)
    assert value.why == "no bits per byte: the tokenizer does not give 1 reference solutions back"


def test_a_model_of_no_numbers_is_one_line(here: Path, subject: Subject) -> None:
    write(BENCHMARK, [record(0)])
    broken = build_model(SHAPE, vocab_size=subject.tokenizer.vocab_size, end=0, pad=1, seed=1).eval()
    torch.nn.init.constant_(broken.model.norm.weight, math.nan)
    with pytest.raises(
        CheckFailed, match=r"^the model gives the solution of own/0 a likelihood of nan: its weights or"
    ):
        code_tasks(job_of(replace(subject, model=broken)))


def test_tasks_of_mbpp_run_whole_programs(here: Path, subject: Subject) -> None:
    """One with plain values, and one whose tests make an object of the setup: judged in one process."""
    setup = "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
    plain = {"task_id": 1, "text": "Double.", "code": "def double(x):\r\n    return 2 * x\r\n"}
    objects = {
        "task_id": 2,
        "text": "Add.",
        "code": "def add(pair):\n    return pair.a + pair.b\n",
        "test_setup_code": setup,
    }
    tests = (["assert double(2) == 4"], ["assert add(Pair(1, 2)) == 3"])
    write(BENCHMARK, ({**task, "test_list": lines} for task, lines in zip((plain, objects), tests, strict=True)))
    texts = (
        "def double(x):\n    return x + x\nassert double(1) == 3\n",
        "def add(pair):\n    return pair.b + pair.a\n",
    )
    samples = ({"task_id": number + 1, "completion": text} for number, text in enumerate(texts))
    found = code_tasks(job_of(subject, samples=write("samples.jsonl", samples)))["code/own"]
    assert (found.metrics["pass_at_1"].value, found.counts["in_child"], found.settings["format"]) == (1, 1, "MBPP")
    assert pd.read_parquet("out/results/code.parquet")["oracle"].tolist() == ["apart", "in_child"]


SAMPLES: list[tuple[list[dict[str, Any]], list[int], str]] = [
    ([], [1], "samples.jsonl has no samples; expected one object with task_id and completion per line"),
    ([completion(9, "")], [1], "samples.jsonl:1: the benchmark has no task 'own/9'; remove the sample"),
    (
        [completion(0, ""), {"task_id": "own/0"}],
        [1],
        "samples.jsonl:2: expected an object with the texts task_id and completion; completion is missing",
    ),
    (
        [{"task_id": "own/0", "completion": None}],
        [1],
        "samples.jsonl:1: expected an object with the texts task_id and completion; completion is of another type",
    ),
    (
        [{"task_id": True, "completion": ""}],
        [1],
        "samples.jsonl:1: expected an object with the texts task_id and completion; task_id is of another type",
    ),
    (
        [completion(0, "\ud800")],
        [1],
        "samples.jsonl:1: completion holds a lone surrogate, which is not text; remove the sample",
    ),
    (
        [completion(0, ""), completion(0, ""), completion(1, "")],
        [1, 2],
        "pass@2 needs 2 samples per task, and samples.jsonl has 1 of own/1; lower evaluate.code.k",
    ),
]


@pytest.mark.parametrize(("samples", "k", "message"), SAMPLES, ids=[message[:50] for *_, message in SAMPLES])
def test_a_file_of_samples_that_cannot_be_used_is_one_line_before_any_work(
    here: Path,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    samples: list[dict[str, Any]],
    k: list[int],
    message: str,
) -> None:
    write(BENCHMARK, map(record, range(2)))
    monkeypatch.setattr(module, "open_sandbox", lambda choice: pytest.fail("work began"))
    with pytest.raises(UserError) as error:
        code_tasks(
            job_of(subject, samples=write("samples.jsonl", samples), code={"k": k, "samples": 2, "temperature": 1.0})
        )
    assert str(error.value) == message
    assert list(Path("out/results").iterdir()) == []


def test_samples_of_several_benchmarks_are_refused(here: Path, subject: Subject) -> None:
    names = [BENCHMARK, "data/benchmarks/more.jsonl"]
    for name in names:
        write(name, [record(0)])
    with pytest.raises(UserError, match=r"^samples\.jsonl needs one benchmark, and evaluate\.benchmarks names 2; "):
        code_tasks(job_of(subject, samples=Path("samples.jsonl"), benchmarks=names))


def test_two_benchmarks_share_a_table_and_have_their_own_results(here: Path, subject: Subject) -> None:
    names = [BENCHMARK, "data/benchmarks/more.jsonl"]
    write(names[0], map(record, range(2)))
    write(names[1], [record(7)])
    found = code_tasks(job_of(subject, benchmarks=names, code={"max_tokens": 2}))
    assert {task: result.items for task, result in found.items()} == {"code/own": 2, "code/more": 1}
    assert pd.read_parquet("out/results/code.parquet")["benchmark"].tolist() == ["own", "own", "more"]
    assert pd.read_csv("out/plots/pass_at_k.csv")["benchmark"].tolist() == ["own", "more"]


def test_two_results_are_compared_by_task_with_mcnemar(here: Path, subject: Subject) -> None:
    """Five tasks are solved by A alone and fifteen by B alone: p = 0.041389."""
    write(BENCHMARK, map(record, range(22)))
    solved = {"a": {*range(5), 20}, "b": {*range(5, 20), 20}}
    sides = []
    for name, passing in solved.items():
        texts = (completion(n, f"    return x + {n if n in passing else -1}\n") for n in range(22))
        job = job_of(subject, name, samples=write(f"{name}.jsonl", texts))
        tasks = code_tasks(job)
        with write_table(job.results, "documents", texts=["content"], numbers=[]) as table:
            table.add({"item": "d", "unit": "d", "content": "d"}, {})
        documents = TaskResult(task="documents", items=1, units=1, settings={}, metrics={})
        numbers: Any = {"seed": 1, "bootstrap": 100, "confidence": 0.95}
        result = Evaluation(model=name, data="", tasks={"documents": documents, **tasks}, **numbers)
        result.write(Path(name, "details.json"))
        sides.append(ResultFolder(ComparedSide(name=name, kind="folder"), Path(name)))
    [comparison] = compare_results(sides, CompareSettings()).comparisons
    metrics = {metric.metric: metric for metric in comparison.metrics if metric.task == "code/own"}
    found = metrics["pass_at_1"]
    assert (found.a, found.b) == pytest.approx((6 / 22, 16 / 22))
    assert (found.test, found.units) == ("mcnemar", 22)
    assert found.p == pytest.approx(0.041389, abs=1e-6)
    assert metrics["solution_bits_per_byte"].verdict == "equal"
    [flips] = [items for items in comparison.changes if items.metric == "pass_at_1"]
    assert (flips.flips, flips.better, flips.worse) == (True, 15, 5)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.3), (5, 0.91667)])
def test_pass_at_k_of_three_passes_in_ten(k: int, expected: float) -> None:
    task = SolvedTask((3, 7, 0, 0, 0, 0), parsed=10, nll=0.0, bytes=1)
    above, below = pass_metric(k).measure(task)
    assert (round(above, 5), below) == (expected, 1.0)


def test_metrics_of_code_are_found_by_name() -> None:
    names = ("pass_at_1", "pass_at_100", "program_parse_rate", "solution_bits_per_byte")
    assert [metric.name for name in names if (metric := code_metric(name))] == list(names)
    assert [code_metric(name) for name in ("pass_at_0", "pass_at_01", "pass_at_k", "bits_per_byte", "")] == [None] * 5
