"""Read the benchmarks that must not be trained on, from JSON Lines files, into the index of `decontaminate`.

Used by: split.screen, split.manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.globs import expand_glob
from codex_ml.core.object_lines import object_lines
from codex_ml.core.tree import is_left_out
from codex_ml.split.config import Benchmark
from codex_ml.split.decontaminate import (
    Benchmarks,
    Words,
    half_of,
    index_of,
    limits,
    runs_of,
    tokenised,
)

ROOT = Path("data/benchmarks")
ALLOW_LIST = ROOT / "allow.txt"


def read_benchmarks(files: tuple[Benchmark, ...]) -> Benchmarks:
    """Index the items of JSON Lines files, plain or .gz. `path` is a glob relative to the working directory.

    The name of an item is its `task_id`, else its `id`, else FILE:LINE. Each of `fields` that holds a string is a text.
    A text with the same words as a line of data/benchmarks/allow.txt is trivial and skipped.

    Raises:
        UserError: when a path matches no file, a line is not a JSON object, or no item has one of the fields.
    """
    building = _Building(_allow_list())
    for benchmark in files:
        missing = set(benchmark.fields)
        seen: set[str] = set()
        paths = _paths(benchmark.path)
        for path in paths:
            for line, record in object_lines(path, key="split.benchmarks"):
                missing -= building.add(path, line, record, benchmark.fields)
                seen |= {name for name, value in record.items() if isinstance(value, str)}
        if missing:
            raise UserError(
                f"{benchmark.path}: no item has a text in the field {', '.join(sorted(missing))}; fields with texts: "
                f"{', '.join(sorted(seen)[:20]) or 'none'}. Set `fields` of this entry to some of them"
            )
    return building.finished()


class _Building:
    """Collects the texts that `read_benchmarks` reads."""

    def __init__(self, trivial: set[bytes]) -> None:
        self.trivial = trivial
        self.items: list[tuple[str, str]] = []
        self.unchecked: list[str] = []
        self.words: list[NDArray[np.uint32]] = []
        self.first_words: list[int] = []
        self.count = 0
        self.lengths: set[int] = set()
        self.hashes: list[Words] = []
        self.places: list[NDArray[np.uint32]] = []

    def add(self, path: Path, line: int, record: dict[str, Any], fields: tuple[str, ...]) -> set[str]:
        """Add an item; return the names of its fields that hold a string."""
        benchmark = path.relative_to(ROOT).as_posix()
        item = _name(record) or f"{benchmark}:{line}"
        self.items.append((benchmark, item))
        self.first_words.append(self.count)
        texts = {name: record[name] for name in fields if isinstance(record.get(name), str)}
        if not texts:
            self.unchecked.append(f"{benchmark}: {item} (no text)")
        for name, text in texts.items():
            words = tokenised(text)
            run, fewest = limits(text, len(words))
            if words.tobytes() in self.trivial:
                continue
            if len(words) < fewest:
                self.unchecked.append(f"{benchmark}: {item} ({name}, {len(words)} words)")
                continue
            length = min(len(words), run)
            [hashes] = runs_of(words, (length,))
            self.lengths.add(length)
            self.hashes.append(hashes)
            self.places.append(np.arange(self.count, self.count + len(hashes), dtype=np.uint32))
            self.words.append(half_of(words))
            self.count += len(words)
            assert self.count < 2**32, "places are 32 bits"
        return set(texts)

    def finished(self) -> Benchmarks:
        first_words = np.array(self.first_words, dtype=np.int64)
        index = None
        if self.hashes:
            index = index_of(
                tuple(sorted(self.lengths)), np.concatenate(self.hashes), np.concatenate(self.places), first_words
            )
        words = np.concatenate([*self.words, np.zeros(0, dtype=np.uint32)])
        return Benchmarks(tuple(self.items), tuple(self.unchecked), words, first_words, index)


def _name(record: dict[str, Any]) -> str:
    for key in ("task_id", "id"):
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


def _paths(pattern: str) -> list[Path]:
    try:
        paths = [path for path in expand_glob(pattern) if path.is_file() and path != ALLOW_LIST]
    except ValueError as error:
        raise UserError(f"split.benchmarks: {pattern}: {error}") from None
    if not paths:
        raise UserError(f"split.benchmarks: {pattern} matches no file; put the benchmark there or remove the entry")
    return paths


def _allow_list() -> set[bytes]:
    """The word hashes of each line of the allow list, as bytes."""
    if not ALLOW_LIST.is_file() or is_left_out(ALLOW_LIST):
        return set()
    try:
        lines = ALLOW_LIST.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{ALLOW_LIST}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return {words.tobytes() for line in lines if len(words := tokenised(line))}
