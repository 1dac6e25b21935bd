"""Interruption changes nothing, in every cell of the matrix.

{accumulation 1, 3} x {all weights, LoRA} x {packed text, padded records trained on their completions} x {middle of
epoch 1, its end, middle of epoch 2} x {killed between two steps, killed in a save}. In each a process dies of SIGKILL,
and a run goes on from what it left on the disk; models and adapters have dropout.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from itertools import product

import pytest

from .outcomes import Outcome, assert_equal, run

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.costly]

# 12 rows are 6 steps of 2, or 2 steps of 6
STEPS = {1: 10, 3: 5}
PLACES = {
    1: {"middle of epoch 1": 3, "end of epoch 1": 6, "middle of epoch 2": 8},
    3: {"middle of epoch 1": 1, "end of epoch 1": 2, "middle of epoch 2": 3},
}
SAVED = ("best", "model.safetensors", "optimizer.safetensors")  # files that a save can die in, each in its turn
CONFIGURATIONS = list(product(PLACES, ("all weights", "LoRA"), ("packed", "padded")))
CELLS = [
    (*configuration, place, kill)
    for number, configuration in enumerate(CONFIGURATIONS)
    for turn, place in enumerate(PLACES[configuration[0]])
    for kill in ("between steps", SAVED[(number + turn) % len(SAVED)])
]
# Two cells of each configuration run every time, one of each kind of kill; `make test-slow` runs the others.
FIRST = [
    cell
    for number in range(len(CONFIGURATIONS))
    for cell in (CELLS[6 * number + 2 * (number % 3)], CELLS[6 * number + 2 * ((number + 1) % 3) + 1])
]


def name(case: tuple[object, ...]) -> str:
    return ", ".join(map(str, case))


def settings(accumulation: int, weights: str, layout: str) -> dict[str, object]:
    kind = {"lora": weights == "LoRA", "layout": layout, "accumulation": accumulation}
    return {**kind, "max_steps": STEPS[accumulation], "checkpoint_every": 1, "eval_every": 1, "keep_best": 3}


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Callable[..., tuple[Outcome, object]]:
    """The uninterrupted run of a configuration, made once, and its folder."""
    made: dict[tuple[object, ...], tuple[Outcome, object]] = {}

    def of(*configuration):
        if configuration not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[configuration] = run(recipe, pytest.MonkeyPatch(), folder, **settings(*configuration)), folder
        return made[configuration]

    return of


def test_the_matrix_is_whole():
    assert len({cell[:4] for cell in CELLS}) == 2 * 2 * 2 * 3
    assert len({(*cell[:4], cell[4] == "between steps") for cell in CELLS}) == len(CELLS) == 48
    assert {cell[3] for cell in FIRST if cell[4] == "between steps"} == {cell[3] for cell in CELLS}
    assert {cell[4] for cell in FIRST} == {"between steps", *SAVED}
    assert {(*cell[:3], cell[4] == "between steps") for cell in FIRST} == {
        (*c, k) for c in CONFIGURATIONS for k in (True, False)
    }
    assert {(*cell[:3], cell[4]) for cell in CELLS} == {
        (*configuration, kill) for configuration in CONFIGURATIONS for kill in ("between steps", *SAVED)
    }


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=name(cell), marks=[pytest.mark.slow] * (cell not in FIRST)) for cell in CELLS]
)
def test_killed_run_ends_with_the_same_bytes(recipe, train_and_kill, uninterrupted, monkeypatch, tmp_path, cell):
    *configuration, place, kill = cell
    whole, _ = uninterrupted(*configuration)
    changes, done = settings(*configuration), PLACES[configuration[0]][place]
    order = {"step": done} if kill == "between steps" else {"step": done, "file": kill}
    assert train_and_kill(tmp_path, order, **changes) == -signal.SIGKILL
    saved = done - ("file" in order)
    assert max((folder.name for folder in (tmp_path / "scratch").glob("step-*")), default="step-00000000") == (
        f"step-{saved:08d}"
    )
    resumed = run(recipe, monkeypatch, tmp_path, **changes)

    assert list(resumed.steps) == list(range(saved, STEPS[configuration[0]]))
    assert_equal(resumed, whole)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=name)
def test_finished_run_resumes_without_a_step(recipe, uninterrupted, monkeypatch, tmp_path, configuration):
    whole, folder = uninterrupted(*configuration)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    again = run(recipe, monkeypatch, tmp_path, **settings(*configuration))

    assert len(whole.steps) == STEPS[configuration[0]]
    assert again.steps == {}
    assert_equal(again, whole)
