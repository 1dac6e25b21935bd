"""benchmarks/evaluate_generation.py compares equal work: the same prompts, the same texts, as many tokens."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluate_generation.py"
ROWS = ["one by one", "batched", "ours", "ours, sampled"]


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The script, which is no package."""
    spec = importlib.util.spec_from_file_location("evaluate_generation", FILE)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    for name in ("measuring", "train_shapes"):
        del sys.modules[name]


def test_all_rows_are_measured_and_write_as_many_tokens(benchmark, tmp_path, capsys) -> None:
    import torch

    threads = torch.get_num_threads()
    options = {"shape": "tiny", "prompts": 5, "tokens": 6, "batch_size": 2, "rounds": 2, "threads": 1}
    benchmark.main(**options, json_out=tmp_path / "seconds.json")
    torch.set_num_threads(threads)
    seconds = json.loads((tmp_path / "seconds.json").read_text())
    assert list(seconds) == ROWS
    assert all(len(times) == 2 for times in seconds.values())
    assert "5 prompts of" in capsys.readouterr().out


def test_texts_of_all_engines_are_equal_and_never_end_early(benchmark) -> None:
    shape = benchmark.SHAPES["tiny"]
    model = benchmark.without_end(benchmark.llama(shape, attention="eager").eval())
    prompts = benchmark.random_prompts(shape, 5, 6)
    texts = benchmark.ours(model, prompts, {"max_tokens": 6}, 2)
    assert texts == benchmark.theirs(model, prompts, 6, 1) == benchmark.theirs(model, prompts, 6, 2)
    assert {len(text) for text in [*texts, *benchmark.ours(model, prompts, benchmark.sampled(6), 2)]} == {6}


def test_other_texts_end_the_benchmark(benchmark, monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "ours", lambda *_: [()])
    with pytest.raises(SystemExit, match="the greedy texts of ours are not those of one by one"):
        benchmark.main(shape="tiny", prompts=2, tokens=2, batch_size=2, rounds=1, threads=1, json_out=None)
