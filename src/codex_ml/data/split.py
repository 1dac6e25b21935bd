"""Train, validation and test: one document of each family of near-duplicates, dealt by a keyed hash of its content.

Row order, file names and shards have no influence. A second search with other hash functions then looks for pairs
across the splits; a train document that has one is evicted, so that the test set stays clean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codex_ml.config import Split
from codex_ml.data.dedup import Shingles, components, near_pairs, shingles
from codex_ml.data.documents import Document
from codex_ml.data.licences import is_allowed
from codex_ml.errors import UserError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
DEDUP_SEED, BARRIER_SEED = 1, 2  # of the hash functions; another one would find other borderline pairs


@dataclass(frozen=True)
class Entry:
    """What the split needs to know of a document; its text is not kept."""

    id: str
    source: str
    path: str
    licence: str
    content_id: str
    bytes: int
    shingles: Shingles


@dataclass(frozen=True)
class Verdict:
    """Where a document went: a part, or dropped with a reason (and the document that stands for it)."""

    part: Part | None
    reason: str = ""
    kept: str = ""


@dataclass(frozen=True)
class Leakage:
    """How clean the test set is, and how clean a random split of the same documents would have been.

    Attributes:
        evicted: train documents that the independent search removed.
        near_cross: near-duplicate pairs across splits in the result; 0.
        random_split_leak: share of the test documents of a random split with a near-duplicate in its train part.
    """

    evicted: int
    near_cross: int
    random_split_leak: float


def entry(document: Document) -> Entry:
    """Reduce a document to what the split needs."""
    return Entry(
        id=document.id,
        source=document.source,
        path=document.path,
        licence=document.licence,
        content_id=content_id(document.text),
        bytes=len(document.text.encode("utf-8")),
        shingles=shingles(document.text),
    )


def content_id(text: str) -> str:
    """SHA-256 of the canonical text: LF line ends, no white space at line ends. Case and Unicode form are content."""
    canonical = re.sub(r"[ \t]+(?=\n|\Z)", "", text.replace("\r\n", "\n")).rstrip("\n")
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def position(key: str, salt: str) -> float:
    """A number in [0, 1) from a keyed hash (BLAKE2b): the same for the same content, whatever else is in the corpus."""
    digest = hashlib.blake2b(key.encode(), key=hashlib.sha256(salt.encode()).digest(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def part_of(key: str, params: Split) -> Part:
    """The split that a content id is dealt to."""
    place = position(key, params.salt)
    return "test" if place < params.test else "val" if place < params.test + params.val else "train"


def split(entries: Iterable[Entry], params: Split) -> tuple[dict[str, Verdict], Leakage]:
    """Deal every document.

    Returns:
        (verdict by document id, leakage)

    Raises:
        UserError: when train, val or test would be empty.
    """
    verdicts: dict[str, Verdict] = {}
    entries = list(entries)
    if len({e.id for e in entries}) < len(entries):
        raise UserError(
            "a document stands twice in the corpus under one source and path; `dvc repro ingest` makes it anew"
        )
    allowed = [e for e in entries if _licensed(e, params, verdicts)]
    unique = _drop_exact(allowed, params, verdicts)
    pairs = near_pairs([e.shingles for e in unique], threshold=params.near_duplicate, seed=DEDUP_SEED)
    kept = _drop_near(unique, [(a, b) for a, b, _ in pairs], params, verdicts)
    parts = {e.id: part_of(e.content_id, params) for e in kept}
    evicted = _barrier(kept, parts, params)
    for e in kept:
        verdicts[e.id] = (
            Verdict(None, "near-duplicate of held-out", evicted[e.id]) if e.id in evicted else Verdict(parts[e.id])
        )
    _refuse_empty(verdicts, params)
    left = [e for e in kept if e.id not in evicted]
    crossing = _crossing(left, parts, params)
    return verdicts, Leakage(len(evicted), len(crossing), _random_split_leak(allowed, unique, pairs, params))


def _licensed(e: Entry, params: Split, verdicts: dict[str, Verdict]) -> bool:
    allowed = is_allowed(e.licence, frozenset(params.licences))
    if allowed is None and params.unknown_licence == "keep":
        return True
    if not allowed:
        verdicts[e.id] = Verdict(None, "licence unknown" if allowed is None else "licence not allowed")
    return bool(allowed)


def _drop_exact(entries: Sequence[Entry], params: Split, verdicts: dict[str, Verdict]) -> list[Entry]:
    """Keep the document with the smallest id of each content."""
    first: dict[str, Entry] = {}
    for e in sorted(entries, key=lambda e: e.id):
        if e.content_id in first:
            verdicts[e.id] = Verdict(None, "exact duplicate", first[e.content_id].id)
        else:
            first[e.content_id] = e
    return sorted(first.values(), key=lambda e: position(e.content_id, params.salt))


def _drop_near(
    entries: Sequence[Entry], pairs: list[tuple[int, int]], params: Split, verdicts: dict[str, Verdict]
) -> list[Entry]:
    """Keep the first document of each family; the entries come in the order of a hash that no name influences."""
    representative = components(len(entries), pairs)
    for index, e in enumerate(entries):
        if representative[index] != index:
            verdicts[e.id] = Verdict(None, "near-duplicate", entries[representative[index]].id)
    return [e for index, e in enumerate(entries) if representative[index] == index]


def _crossing(entries: Sequence[Entry], parts: dict[str, Part], params: Split) -> list[tuple[Entry, Entry]]:
    pairs = near_pairs([e.shingles for e in entries], threshold=params.near_duplicate, seed=BARRIER_SEED)
    return [(entries[a], entries[b]) for a, b, _ in pairs if parts[entries[a].id] != parts[entries[b].id]]


def _barrier(entries: Sequence[Entry], parts: dict[str, Part], params: Split) -> dict[str, str]:
    """Documents to evict, with the held-out document that each resembles: the train side, or the val side."""
    evicted = {}
    for a, b in _crossing(entries, parts, params):
        first, second = sorted((a, b), key=lambda e: PARTS.index(parts[e.id]))
        evicted[first.id] = second.id
    return evicted


def _refuse_empty(verdicts: dict[str, Verdict], params: Split) -> None:
    for part in PARTS:
        if not any(verdict.part == part for verdict in verdicts.values()):
            kept = sum(verdict.part is not None for verdict in verdicts.values())
            raise UserError(
                f"the {part} split is empty ({kept} of {len(verdicts)} documents passed licences and duplicates); "
                "add documents, raise split.val and split.test, or change split.salt or split.licences"
            )


def _random_split_leak(
    allowed: Sequence[Entry], unique: Sequence[Entry], pairs: list[tuple[int, int, float]], params: Split
) -> float:
    """The counterfactual: rows dealt at random, as the usual one-liner does, with nothing removed."""
    index = {e.content_id: i for i, e in enumerate(unique)}
    near: dict[int, set[int]] = {i: {i} for i in range(len(unique))}
    for a, b, _ in pairs:
        near[a].add(b)
        near[b].add(a)
    rows = [index[e.content_id] for e in sorted(allowed, key=lambda e: e.id)]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))
    held_out = max(1, round(len(rows) * params.test))
    test, train = [rows[i] for i in order[:held_out]], {rows[i] for i in order[held_out:]}
    return sum(bool(near[row] & train) for row in test) / len(test)
