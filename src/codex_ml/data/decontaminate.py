"""Items of public benchmarks inside training text: exact runs of code words, wherever case and punctuation differ.

A code word is a run of [A-Za-z0-9_], lower-cased. A text of 13 words or more is found by any 13 of its words in a row
(Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C), one of 6 to 12 words only as a whole: most
solutions of HumanEval have no line of 13 words. Paraphrases are not found.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.config import Benchmark
from codex_ml.data.shingles import MULTIPLY, word_hashes
from codex_ml.errors import UserError

RUN_WORDS, FEWEST_WORDS = 13, 6
ROOT = Path("data/benchmarks")
ALLOW_LIST = ROOT / "allow.txt"

_IS_WORD = np.array([byte < 128 and (chr(byte).isalnum() or byte == 95) for byte in range(256)])
_BITS = np.array([1 << bit for bit in range(8)], dtype=np.uint8)
_PLACES = np.cumprod(np.full(RUN_WORDS, MULTIPLY, dtype=np.uint64))  # odd, so no word at any place loses a bit

_Words = NDArray[np.uint64]
_Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Hit:
    """Where an item stands in a text: text[start:end], in characters. The longest of its spans."""

    benchmark: str
    item: str
    start: int
    end: int


@dataclass(frozen=True)
class _Index:
    """The runs of all texts, whatever their length: 12 bytes each, and 2 to 4 for the filter.

    Attributes:
        lengths: words of a run, those that occur.
        hashes: (n_runs,) uint64, sorted.
        places: (n_runs,) uint32, of the first word of a run in Benchmarks.words.
        filter: bits, by the first bits of a hash. It spares 15 of 16 runs, or more, the search.
        shift: leaves those first bits.
    """

    lengths: tuple[int, ...]
    hashes: _Words
    places: NDArray[np.uint32]
    filter: NDArray[np.uint8]
    shift: np.uint64

    def found(self, hashes: _Words) -> tuple[_Offsets, _Offsets]:
        """Which of the hashes are in the index, and where they are first."""
        keys = (hashes >> self.shift).view(np.int64)
        bits = self.filter[keys >> 3] & _BITS[keys & 7]
        chosen = np.flatnonzero(bits)
        if len(chosen):
            left = np.searchsorted(self.hashes, hashes[chosen])
            equal = self.hashes[np.minimum(left, len(self.hashes) - 1)] == hashes[chosen]
            return chosen[equal], left[equal]
        return chosen, chosen


@dataclass(frozen=True)
class Benchmarks:
    """An index of items.

    Attributes:
        items: names (benchmark, item).
        unchecked: texts below 6 words, as "BENCHMARK: ITEM (FIELD, n words)", and items without any text.
        words: (n_words,) uint32, halves of the hashes of the words of all texts: a hit is compared with them.
        first_words: (n_items,) int64, where the words of an item begin.
        index: None without any text.
    """

    items: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]
    words: NDArray[np.uint32]
    first_words: _Offsets
    index: _Index | None

    def find(self, text: str) -> list[Hit]:
        """The items that the text holds, in the order in which they were read; one hit each."""
        if self.index is None:
            return []
        data, starts, ends, words = _tokenised(text)
        runs = _runs(words, self.index.lengths)
        chosen, left = self.index.found(np.concatenate(runs))
        if not len(chosen):
            return []
        spans: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # of an item: first word, word after last
        begin = 0
        for length, hashes in zip(self.index.lengths, runs, strict=True):
            here = (chosen >= begin) & (chosen < begin + len(hashes))
            self._add_spans(spans, self.index, length, chosen[here] - begin, left[here], words)
            begin += len(hashes)
        character = None if text.isascii() else _characters(data)
        hits = []
        for item in sorted(spans):
            first, last = _longest(spans[item], starts, ends)
            start, end = int(starts[first]), int(ends[last - 1])
            if character is not None:
                start, end = int(character[start]), int(character[end])
            hits.append(Hit(*self.items[item], start, end))
        return hits

    def _add_spans(
        self,
        spans: dict[int, list[tuple[int, int]]],
        index: _Index,
        length: int,
        places: _Offsets,
        left: _Offsets,
        words: _Words,
    ) -> None:
        """Compare the runs that begin at `places` with those of the index at `left`, and note them for each item."""
        same = np.ones(len(places), dtype=bool)
        for offset in range(length):
            same &= self.words[index.places[left].astype(np.int64) + offset] == _half(words[places + offset])
        places, left = places[same], left[same]
        # A run that many items share and the text repeats is kept once an item, never as items times repetitions.
        distinct, run_of_place = np.unique(left, return_inverse=True)
        after = np.searchsorted(index.hashes, index.hashes[distinct], side="right")
        runs_of_item: defaultdict[int, list[int]] = defaultdict(list)
        for run, (start, stop) in enumerate(zip(distinct.tolist(), after.tolist(), strict=True)):
            for item in self._items_at(index.places[start:stop]).tolist():
                runs_of_item[item].append(run)
        for item, runs in runs_of_item.items():
            chosen = np.zeros(len(distinct), dtype=bool)
            chosen[runs] = True
            spans[item] += _merged(places[chosen[run_of_place]], length)

    def _items_at(self, places: NDArray[np.uint32]) -> _Offsets:
        return np.searchsorted(self.first_words, places, side="right") - 1


def read_benchmarks(files: tuple[Benchmark, ...]) -> Benchmarks:
    """Index the items of JSON Lines files, plain or .gz; `path` is a glob from the working directory.

    An item is named by its `task_id`, else its `id`, else FILE:LINE. Each of its fields that holds a string is a text.
    A text whose words are those of a line of data/benchmarks/allow.txt is trivial and left out.

    Raises:
        UserError: when a path matches no file, a line is no JSON object, or no item has one of the fields.
    """
    building = _Building(_allow_list())
    for benchmark in files:
        missing = set(benchmark.fields)
        seen: set[str] = set()
        paths = _paths(benchmark.path)
        for path in paths:
            for line, record in _records(path):
                missing -= building.add(path, line, record, benchmark.fields)
                seen |= {name for name, value in record.items() if isinstance(value, str)}
        if missing:
            raise UserError(
                f"{benchmark.path}: no item has a text in the field {', '.join(sorted(missing))}; fields with texts: "
                f"{', '.join(sorted(seen)[:20]) or 'none'}. Name those to compare in split.benchmarks, fields"
            )
    return building.finished()


class _Building:
    """What read_benchmarks collects, text by text."""

    def __init__(self, trivial: set[bytes]) -> None:
        self.trivial = trivial
        self.items: list[tuple[str, str]] = []
        self.unchecked: list[str] = []
        self.words: list[NDArray[np.uint32]] = []
        self.first_words: list[int] = []
        self.count = 0
        self.lengths: set[int] = set()
        self.hashes: list[_Words] = []
        self.places: list[NDArray[np.uint32]] = []

    def add(self, path: Path, line: int, record: dict[str, Any], fields: tuple[str, ...]) -> set[str]:
        """Returns the fields that hold a string."""
        benchmark = path.relative_to(ROOT).as_posix()
        item = _name(record) or f"{benchmark}:{line}"
        self.items.append((benchmark, item))
        self.first_words.append(self.count)
        texts = {name: record[name] for name in fields if isinstance(record.get(name), str)}
        if not texts:
            self.unchecked.append(f"{benchmark}: {item} (no text)")
        for name, text in texts.items():
            words = _tokenised(text)[3]
            if words.tobytes() in self.trivial:
                continue
            if len(words) < FEWEST_WORDS:
                self.unchecked.append(f"{benchmark}: {item} ({name}, {len(words)} words)")
                continue
            length = min(len(words), RUN_WORDS)
            [hashes] = _runs(words, (length,))
            self.lengths.add(length)
            self.hashes.append(hashes)
            self.places.append(np.arange(self.count, self.count + len(hashes), dtype=np.uint32))
            self.words.append(_half(words))
            self.count += len(words)
            assert self.count < 2**32, "places are 32 bits"
        return set(texts)

    def finished(self) -> Benchmarks:
        first_words = np.array(self.first_words, dtype=np.int64)
        index = None
        if self.hashes:
            index = _index(
                tuple(sorted(self.lengths)), np.concatenate(self.hashes), np.concatenate(self.places), first_words
            )
        words = np.concatenate([*self.words, np.zeros(0, dtype=np.uint32)])
        return Benchmarks(tuple(self.items), tuple(self.unchecked), words, first_words, index)


def _index(lengths: tuple[int, ...], hashes: _Words, places: NDArray[np.uint32], first_words: _Offsets) -> _Index:
    """What an item repeats is kept once."""
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    items = np.searchsorted(first_words, places, side="right")
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
    hashes, places = hashes[new], places[new]
    bits = max(10, (len(hashes) * 16 - 1).bit_length())  # 16 to 32 bits a run
    shift = np.uint64(64 - bits)
    held = np.zeros(1 << bits, dtype=bool)
    held[hashes >> shift] = True
    return _Index(lengths, hashes, places, np.packbits(held, bitorder="little"), shift)


def _name(record: dict[str, Any]) -> str:
    for key in ("task_id", "id"):
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


def _tokenised(text: str) -> tuple[bytes, _Offsets, _Offsets, _Words]:
    """The text as UTF-8, and where its words start and end there, and their hashes.

    bytes.lower() changes ASCII only: str.lower() would turn the Kelvin sign into a letter and move what follows.
    """
    data = text.encode("utf-8", "surrogatepass")
    padded = b" " + data.lower() + b" " * 9  # a blank around each word, and room for the last 8 bytes
    inside = _IS_WORD[np.frombuffer(padded, np.uint8)]
    edges = np.flatnonzero(inside[1:] != inside[:-1])  # counted in the text, since the blank in front is skipped
    starts, ends = edges[0::2], edges[1::2]
    return data, starts, ends, word_hashes(padded, starts + 1, ends - starts)


def _runs(words: _Words, lengths: tuple[int, ...]) -> list[_Words]:
    """Hashes of all runs of so many words, for each of the ascending lengths: a longer run is a shorter one and more.

    Empty for lengths above that of the text.
    """
    total = np.zeros(len(words) + 1, dtype=np.uint64)
    runs, length = [], 0
    for wanted in lengths:
        for place in range(length, wanted):
            total = total[: max(0, len(words) - place)]
            total += words[place:] * _PLACES[place]
        length = wanted
        runs.append(total.copy())
    return runs


def _half(words: _Words) -> NDArray[np.uint32]:
    return (words >> np.uint64(32)).astype(np.uint32)


def _merged(places: _Offsets, length: int) -> list[tuple[int, int]]:
    """Spans (first word, word after the last) of runs that begin at sorted places, joined where they touch."""
    gaps = np.flatnonzero(np.diff(places) > length)
    firsts = places[np.concatenate([[0], gaps + 1])]
    lasts = places[np.concatenate([gaps, [-1]])] + length
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _longest(spans: list[tuple[int, int]], starts: _Offsets, ends: _Offsets) -> tuple[int, int]:
    """The span of the most characters, the first of equals, after those of different lengths are joined too."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return max(joined, key=lambda span: int(ends[span[1] - 1] - starts[span[0]]))


def _characters(data: bytes) -> _Offsets:
    """How many characters begin before each byte of UTF-8, and before its end: (n_bytes + 1,) int64."""
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(begins, dtype=np.int64)])


def _paths(pattern: str) -> list[Path]:
    try:
        paths = sorted(path for path in Path().glob(pattern) if path.is_file() and path != ALLOW_LIST)
    except ValueError as error:  # "**" inside a name
        raise UserError(f"split.benchmarks: {pattern}: {error}; use * inside a name, or ** for any folders") from None
    if not paths:
        raise UserError(f"split.benchmarks: {pattern} matches no file; put the benchmark there or remove the entry")
    return paths


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank."""
    line = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line, raw in enumerate(file, 1):
                if raw.strip():
                    yield line, _object(path, line, raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}:{line + 1}: damaged gzip file ({error}); fetch it again") from None


def _object(path: Path, line: int, raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
    else:
        if isinstance(record, dict):
            return record
        reason = f"a JSON {type(record).__name__}"
    raise UserError(
        f"{path}:{line}: not a JSON object ({reason}); split.benchmarks takes JSON Lines, an object a line: mend the "
        "line, or name only such files in path"
    )


def _allow_list() -> set[bytes]:
    """Hashes of the words of each line, as bytes."""
    if not ALLOW_LIST.is_file():
        return set()
    try:
        lines = ALLOW_LIST.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{ALLOW_LIST}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return {words.tobytes() for line in lines if len(words := _tokenised(line)[3])}
