"""Two processes (gloo) do the same step as one, and a run resumes with a different number of processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codex_ml.modeling.rows import IGNORE
from codex_ml.train.checkpoint import load_newest
from codex_ml.train.config import Train
from codex_ml.train.run import rows_of_a_pass

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.costly]
MUON = {"optimizer": "muon", "embedding_lr": 0.05}
DROPOUT = {"dropout": 0.3}
SETTINGS = {"micro_batch_size": 2, "accumulation": 2, "max_steps": 4, "checkpoint_every": 2}


@pytest.fixture
def run(train_in_processes) -> Callable[..., None]:
    """Train with this number of processes; each dies after `stop` steps if `stop` is not 0."""

    def run(folder: Path, processes: int, *, stop: int = 0, model: dict | None = None, **changes: object) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common["TORCHELASTIC_RUN_ID"] = "test"
        ranks = [{**common, "RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {} for n in range(processes)]
        order = {"kill": {"step": stop} if stop else None, "changes": {**SETTINGS, "keep": 9, **changes}}
        codes = train_in_processes(folder, ranks=ranks, model=model or {}, **order)
        assert all(codes) if stop else not any(codes)  # a process that lost its peer may end by that error

    return run


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"scratch/step-{step:08d}/model.safetensors")


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, other[name], rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="AdamW", marks=pytest.mark.slow),  # test_a_run_of_two_goes_on_alone compares its last step
        pytest.param(MUON, id="Muon"),
    ],
)
def test_two_processes_with_unequal_targets_do_the_steps_of_one(recipe, run, tmp_path, changes):
    rows = recipe.packed(recipe.LENGTHS, seed=1)
    counts = (rows.batch(np.arange(len(rows)))["labels"] != IGNORE).sum(axis=1)
    assert len(set(counts.tolist())) > 1
    run(tmp_path / "one", 1, **changes)
    run(tmp_path / "two", 2, **changes)
    for step in (2, 4):
        assert_close(weights(tmp_path / "two", step), weights(tmp_path / "one", step))
    one, two = (load_newest(tmp_path / name / "scratch") for name in ("one", "two"))
    assert [point["step"] for point in one.points()] == [point["step"] for point in two.points()]
    assert two.state["processes"] == [2]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize(("micro", "accumulation"), [(1, 12), (2, 6), (4, 3), (12, 1)])
def test_all_passes_of_a_process_have_as_many_rows(micro, accumulation, processes):
    size = rows_of_a_pass(Train(micro_batch_size=micro, accumulation=accumulation), processes)
    assert 12 // processes % size == 0
    assert 1 <= size <= micro
    assert processes > 1 or size == micro


def test_two_killed_processes_end_with_the_bytes_of_two_that_were_not(run, tmp_path):
    """With dropout: each process continues with its own random numbers."""
    run(tmp_path / "whole", 2, model=DROPOUT)
    run(tmp_path / "cut", 2, model=DROPOUT, stop=3)
    run(tmp_path / "cut", 2, model=DROPOUT)
    assert weights(tmp_path / "cut", 4).keys() == weights(tmp_path / "whole", 4).keys()
    for file in ("model", "optimizer"):
        whole, cut = (tmp_path / f"{name}/scratch/step-00000004/{file}.safetensors" for name in ("whole", "cut"))
        assert cut.read_bytes() == whole.read_bytes()
    one, other = (state["torch"] for state in load_newest(tmp_path / "whole/scratch").state["random"])
    assert one != other  # or both would drop the same units


def test_a_run_of_two_goes_on_alone_with_the_same_rows_and_says_so(run, tmp_path):
    run(tmp_path / "whole", 1)
    run(tmp_path / "cut", 2, stop=3)
    run(tmp_path / "cut", 1)
    assert_close(weights(tmp_path / "cut", 4), weights(tmp_path / "whole", 4))
    assert load_newest(tmp_path / "cut/scratch").state["processes"] == [2, 1]
