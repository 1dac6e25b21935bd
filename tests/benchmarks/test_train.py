"""benchmarks/train.py counts what it says it counts, and its clock covers whole steps."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "train_peers.py"
LOOPS = ("ours", "ours-adamw", "bare", "trainer", "trainer-fast", "trainer-ours", "nanogpt")


@pytest.fixture(scope="module")
def peers() -> Iterator[ModuleType]:
    """benchmarks/train_peers.py, which is no package."""
    spec = importlib.util.spec_from_file_location("train_peers", FILE)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path
    for name in (spec.name, "turns", "train_shapes"):
        del sys.modules[name]


@pytest.fixture
def torch_as_before() -> Iterator[None]:
    """Takes back what a training run sets for the whole process."""
    import torch
    from accelerate.state import AcceleratorState

    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_main_shape_has_6_84_million_parameters_and_costs_45_8_megaflops_a_token(peers: ModuleType) -> None:
    shape = peers.SHAPES["7m"]
    # embedding 8192 x 256; a layer: 4 x 256^2 + 3 x 256 x 688 + 2 x 256; last norm 256
    assert shape.parameters == 2_097_152 + 6 * (262_144 + 528_384 + 512) + 256 == 6_843_648
    assert shape.flops_per_token == 6 * 6_843_648 + 12 * 6 * 256 * 256 == 45_780_480


@pytest.mark.parametrize("name", ["7m", "small", "one-layer", "sample", "tiny"])
def test_parameters_are_those_of_the_model(peers: ModuleType, name: str) -> None:
    shape = peers.SHAPES[name]
    assert sum(p.numel() for p in peers.llama(shape, attention="eager").parameters()) == shape.parameters


@pytest.mark.usefixtures("peers")
def test_round_takes_the_steps_of_adamw_asked_for_and_the_end_of_stdin_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    now = [10.0]
    turns = sys.modules["turns"]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\n"))
    answers = io.StringIO()
    pace = turns.Pace(1, answers, lambda: {"loss": now[0]})
    weights = [torch.nn.Parameter(torch.zeros(2, 2))]
    muon, adamw = torch.optim.Muon(weights), torch.optim.AdamW(weights)
    taken = []

    def loop() -> None:
        for step in range(9):
            now[0] += 3
            taken.append(step)
            pace(muon)
            pace(adamw)

    with pytest.raises(SystemExit):
        loop()
    assert len(taken) == 1 + 2
    found = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert found == [{"seconds": 3, "loss": 13}, {"seconds": 6, "loss": 19}]


def test_every_loop_is_tried(peers: ModuleType) -> None:
    assert tuple(peers.PEERS) == LOOPS


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.usefixtures("torch_as_before")
def test_loop_takes_a_warm_up_step_and_another(
    peers: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    answers = io.StringIO()
    hook = register_optimizer_step_post_hook(sys.modules["turns"].Pace(1, answers))
    try:
        with pytest.raises(SystemExit):
            peers.PEERS[name].run(peers.Job(name, "tiny", "fp32", False, 1, 1))
    finally:
        hook.remove()
    assert len(answers.getvalue().splitlines()) == 2
