"""Text for benchmarks: JSON Lines of invented code from a seed; some documents are copies or edited copies.

python benchmarks/corpus.py data/raw/bench 400   # MB, in shards of 64 MB
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import typer

SHARD_BYTES = 64_000_000
WORDS, ZIPF = 20_000, 1.1
MEAN_WORDS, EXACT, NEAR = 700, 0.03, 0.08  # a document has about 5 KB; shares of copies and of edited copies


def documents(seed: int, size: int) -> Iterator[str]:
    """Yield documents of invented code, `size` bytes together; an edited copy differs in one word of forty."""
    random = np.random.Generator(np.random.PCG64(seed))
    vocabulary = _vocabulary(random)
    chances = 1 / np.arange(1, WORDS + 1) ** ZIPF
    cumulative = np.cumsum(chances / chances.sum())
    total, last = 0, np.zeros(0, dtype=np.int64)
    while total < size:
        kind = random.random()
        if kind < EXACT and len(last):
            words = last
        elif kind < EXACT + NEAR and len(last):
            words = last.copy()
            places = random.integers(0, len(words), max(1, len(words) // 40))
            words[places] = random.integers(0, WORDS, len(places))
        else:
            length = int(random.integers(50, 2 * MEAN_WORDS - 50))
            words = last = np.searchsorted(cumulative, random.random(length))
        text = "".join(vocabulary[words].tolist())
        total += len(text)
        yield text


def _vocabulary(random: np.random.Generator) -> np.ndarray:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz_"))
    ends = [" ", " ", " ", "(", ") ", " = ", ".", ", ", ":\n    ", "\n", "\n    ", "[", "] "]
    lengths = random.integers(2, 11, WORDS)
    return np.array(
        ["".join(random.choice(letters, n)) + ends[int(random.integers(len(ends)))] for n in lengths], dtype=object
    )


def write(folder: Path, megabytes: int, *, seed: int = 1) -> int:
    """Write shards of JSON Lines; return the number of bytes of text."""
    folder.mkdir(parents=True, exist_ok=True)
    written = number = 0
    while written < megabytes * 1_000_000:
        size = min(SHARD_BYTES, megabytes * 1_000_000 - written)
        with (folder / f"{number:04d}.jsonl").open("w", encoding="utf-8") as lines:
            for row, text in enumerate(documents(seed + number, size)):
                lines.write(json.dumps({"id": f"{number}-{row}", "text": text, "licence": "MIT"}) + "\n")
                written += len(text)
        number += 1
    return written


def main(folder: Path, megabytes: int) -> None:
    """Write about MEGABYTES of text into FOLDER."""
    print(f"{write(folder, megabytes) / 1e6:.0f} MB in {folder}")


if __name__ == "__main__":
    typer.run(main)
