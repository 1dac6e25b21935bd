"""The sorted file of held-out shingles gives the numbers of Python's sets, whatever fits in memory at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.split.held_out_shingles import HeldOutShingles

# Few distinct values, at both ends of uint64 and close together, so that texts share some and ranges are uneven.
VALUES = st.one_of(st.integers(0, 40), st.integers(2**64 - 40, 2**64 - 1), st.sampled_from([2**63, 2**52, 2**56 - 1]))


def array(values) -> np.ndarray:
    return np.array(sorted(values), dtype=np.uint64)


@settings(max_examples=60)
@given(st.lists(st.sets(VALUES, max_size=30), max_size=12), st.sets(VALUES, max_size=40), st.integers(1, 50))
def test_it_counts_like_sets_of_python_for_every_size_of_a_run(tmp_path_factory, sets, wanted, run):
    folder = tmp_path_factory.mktemp("held") / "out"
    held_out = HeldOutShingles.write(folder, map(array, sets), run=run)
    union = set().union(*sets)
    assert len(held_out) == len(union)
    assert held_out.count(array(wanted)) == len(wanted & union)
    assert np.fromfile(folder / "shingles", dtype=np.uint64).tolist() == sorted(union)
    assert [file.name for file in folder.iterdir()] == ["shingles"]


@pytest.mark.parametrize("run", [1 << 20, 1 << 12, 1000])
def test_it_counts_random_shingles(tmp_path: Path, run: int):
    random = np.random.Generator(np.random.PCG64(5))
    values = random.integers(0, 2**64, 50_000, dtype=np.uint64)
    held_out = HeldOutShingles.write(tmp_path / "held_out", iter(np.array_split(values, 300)), run=run)
    wanted = array({*values[::7].tolist(), *random.integers(0, 2**64, 5_000, dtype=np.uint64).tolist()})
    assert held_out.count(wanted) == len(set(wanted.tolist()) & set(values.tolist()))


def test_memory_does_not_grow_with_the_held_out_documents(tmp_path: Path):
    run = 1 << 15  # 256 KiB

    def peak(sets: int) -> int:
        random = np.random.Generator(np.random.PCG64(5))
        tracemalloc.start()
        held_out = HeldOutShingles.write(
            tmp_path / str(sets), (random.integers(0, 2**64, 5000, dtype=np.uint64) for _ in range(sets)), run=run
        )
        for _ in range(20):
            held_out.count(np.sort(random.integers(0, 2**64, 500, dtype=np.uint64)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(20), peak(200)  # 0.1 and 1 million shingles, that is 0.8 and 8 MB
    grown = (1_000_000 - 100_000) * 8
    # Of each run stay 16 KiB, and as much again while its ranges are counted; a real run has 8 MiB.
    tables = 2.2 * (1 << 14) * grown / 8 / run
    assert many - few < tables + 0.1 * grown < 0.3 * grown
