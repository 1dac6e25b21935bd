"""Speed and memory of intervals, paired tests and the n-gram baseline; scipy's bootstrap takes turns with ours.

    python benchmarks/evaluate_statistics.py                  # and the n-gram model on data/splits
    python benchmarks/evaluate_statistics.py --rounds 5

Each row is one call; seconds are the median of the rounds. MB is the peak of memory that numpy and Python hold for one
further call, beside the sums themselves.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.stats import bootstrap

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from codex_ml.documents.document import read_documents  # noqa: E402
from codex_ml.evaluate.ngram import train_ngram  # noqa: E402
from codex_ml.statistics.bootstrap import interval, paired_interval  # noqa: E402
from codex_ml.statistics.paired import randomisation_test  # noqa: E402

Floats = NDArray[np.float64]
RESAMPLES = 1_000
SPLITS = ROOT / "data/splits"
ORDER = 6


def ratio(sums: Floats) -> Floats:
    """Return the first column divided by the second."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def documents(units: int, seed: int) -> Floats:
    """Return nats and bytes of documents."""
    random = np.random.default_rng(seed)
    size = np.ceil(random.lognormal(8.4, 1.46, size=units))
    return np.stack([size * random.lognormal(0, 0.3, size=units), size], axis=1)


def calls() -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name."""
    settings = {"resamples": RESAMPLES, "confidence": 0.95, "seed": 1}
    some, many, most = (documents(units, 1) for units in (1_000, 10_000, 100_000))
    other = many * np.stack([np.random.default_rng(2).lognormal(-0.01, 0.05, size=10_000), np.ones(10_000)], axis=1)

    def scipys() -> object:
        random = np.random.default_rng(1)
        return bootstrap(
            tuple(many.T),
            lambda a, b, axis: a.sum(axis) / b.sum(axis),
            paired=True,
            n_resamples=RESAMPLES,
            method="percentile",
            batch=100,
            rng=random,
        )

    return {
        "interval, 1,000 units": lambda: interval(some, ratio, **settings),
        "interval, 10,000 units": lambda: interval(many, ratio, **settings),
        "scipy.stats.bootstrap (percentile), 10,000 units": scipys,
        "paired interval, 10,000 units": lambda: paired_interval(many, other, ratio, **settings),
        "randomisation test, 10,000 units": lambda: randomisation_test(many, other, ratio, seed=1),
        "randomisation test, 100,000 units": lambda: randomisation_test(most, most * [0.999, 1.0], ratio, seed=1),
        "interval, 100,000 units": lambda: interval(most, ratio, **settings),
    }


def texts(split: str) -> Iterator[str]:
    """Yield the documents of a split."""
    return (document.content for document in read_documents(SPLITS / f"{split}.parquet"))


def peak(call: Callable[[], Any]) -> float:
    """Return the peak of memory during a call, MB."""
    tracemalloc.start()
    call()
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size / 1e6


def baseline() -> None:
    """Print time and memory of the n-gram model on the splits."""
    start = time.perf_counter()
    model = train_ngram(texts("train"), ORDER)
    middle = time.perf_counter()
    bits = [(model.bits(text), len(text.encode("utf-8"))) for text in texts("test")]
    end = time.perf_counter()
    total, size = np.sum(bits, axis=0)
    print(f"n-gram {model.signature}: trained in {middle - start:.1f} s, peak {peak(_train):.0f} MB")
    print(f"n-gram: {size / 1e6:.2f} MB of test scored in {end - middle:.1f} s, {total / size:.3f} bits per byte")


def _train() -> None:
    train_ngram(texts("train"), ORDER)


def main(rounds: int = 3) -> None:
    """Print the table."""
    todo = calls()
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(rounds):
        for name, call in todo.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    print(f"{RESAMPLES:,} resamples; the test draws 9,999 assignments")
    for name, call in todo.items():
        print(f"{name:50s} {median(seconds[name]):7.2f} s {peak(call):7.1f} MB")
    if SPLITS.joinpath("train.parquet").exists():
        baseline()
    else:
        print("n-gram: not run, data/splits is not there")


if __name__ == "__main__":
    typer.run(main)
