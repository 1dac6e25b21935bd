"""Runs of train text in the texts that a model wrote: how many texts copy, how much, from where, under which licence.

A copy is a run of 50 tokens that occurs in the train stream (the length of Carlini et al. 2023 and of
lm-extraction-benchmark). Held-out text of people is measured in the same way: licence headers and generated files give
copies without any model. Trivial copies, such as tables and rows of zeros, are counted apart. The control is a piece of
train text of 60 tokens, planted between tokens that occur nowhere, which must be found at its length and document.

Used by: the part generated of safety_audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codex_ml.inference.audit_files import Control
from codex_ml.modeling.rows import Rows
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import is_trivial
from codex_ml.safety_audit.sampled_texts import SampledText
from codex_ml.safety_audit.window_index import CopiedRun, longest_runs, occurrences

RUN_TOKENS = 50
SHORTEST = 10  # the shortest run whose length is measured, for the picture
PLANTED_MORE = 10  # tokens of the planted copy above those of a run
PLANTED_FROM = 20  # documents that are tried for a piece that occurs in the train stream once
BUCKETS = ((0, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 74), (75, 99), (100, None))  # of lengths in tokens


@dataclass(frozen=True)
class Copies:
    """The longest run of each of some texts, all of which are long enough to hold a copy.

    Attributes:
        samples: the texts.
        runs: per text; None where it has no run of `SHORTEST` tokens.
        trivial: per text, whether its run is long enough for a copy, but trivial.
        width: tokens of a copy.
    """

    samples: list[SampledText]
    runs: list[CopiedRun | None]
    trivial: list[bool]
    width: int

    @property
    def copied(self) -> list[tuple[SampledText, CopiedRun]]:
        """Texts with a copy that is not trivial."""
        rows = zip(self.samples, self.runs, self.trivial, strict=True)
        return [(sample, run) for sample, run, trivial in rows if run and run.length >= self.width and not trivial]

    @property
    def longest(self) -> int:
        """Tokens of the longest run that is not trivial; 0 if none has `SHORTEST` tokens."""
        rows = zip(self.runs, self.trivial, strict=True)
        return max((run.length for run, trivial in rows if run and not trivial), default=0)

    def share_of_length(self, least: int, most: int | None) -> float | None:
        """Share of the texts whose longest run has `least` to `most` tokens; None without texts."""
        lengths = [run.length if run else 0 for run in self.runs]
        inside = sum(least <= length and (most is None or length <= most) for length in lengths)
        return inside / len(lengths) if lengths else None


def copy_width(job: AuditJob, rows: Rows) -> int:
    """Tokens of a copy: 50, or fewer where a row or a sample is shorter."""
    return min(RUN_TOKENS, rows.seq_len, job.settings.sample_tokens)


def find_copies(job: AuditJob, rows: Rows, *sets: Sequence[SampledText]) -> list[Copies]:
    """Find the longest run of each text of some sets, in one search for all; shorter texts than a copy are left out."""
    width, decode = copy_width(job, rows), job.subject.tokenizer.decode
    long = [[sample for sample in samples if len(sample.ids) >= width] for samples in sets]
    texts = [sample.ids for samples in long for sample in samples]
    runs = iter(
        longest_runs(
            rows.tokens,
            texts,
            at_least=min(SHORTEST, width),
            track=lambda passes: job.track(passes, "search for copies", len(passes), "passes"),
        )
    )
    found = []
    for samples in long:
        theirs = [next(runs) for _ in samples]
        trivial = []
        for sample, run in zip(samples, theirs, strict=True):
            ids = np.array(sample.ids[run.place : run.place + run.length] if run else (), dtype=np.int64)
            trivial.append(len(ids) >= width and is_trivial(ids, decode(ids)))
        found.append(Copies(samples, theirs, trivial, width))
    return found


def planted_copy(job: AuditJob, rows: Rows) -> Control | None:
    """Plant a piece of a train document in a text, and find it again; None if no document is long enough.

    The piece is one that occurs in the stream once, if one of `PLANTED_FROM` documents has such a piece.
    """
    width = copy_width(job, rows)
    size, lengths = width + PLANTED_MORE, np.diff(rows.starts.astype(np.int64)) - 1
    inside = np.flatnonzero((lengths >= size) & ~np.isin(np.arange(len(lengths)), rows.canaries))
    if not len(inside):
        return None
    chosen = np.random.Generator(np.random.PCG64([job.seed, len(inside)])).permutation(inside)[:PLANTED_FROM]
    begins = rows.starts[chosen].astype(np.int64) + 1 + (lengths[chosen] - size) // 2
    pieces = [rows.tokens[begin : begin + size].astype(np.int64) for begin in begins]
    counts, positions = occurrences(rows.tokens, pieces)
    number = int(np.argmin(counts))
    document = int(rows.document_of(positions[number : number + 1])[0]) if counts[number] > 1 else int(chosen[number])
    around = np.full(size, int(rows.tokens.max()) + 1)  # an id that does not occur in the stream
    (run,) = longest_runs(rows.tokens, [[*around, *pieces[number], *around]], at_least=width)
    where = "nothing" if run is None else f"{run.length} tokens of document {_document_at(rows, run.position)}"
    expected = f"{size} tokens of document {document}"
    return Control(
        name="a planted copy is found with its document",
        passed=where == expected,
        found=where,
        expected=expected,
        voids=["generated.copied", "generated.longest_copy"],
    )


def _document_at(rows: Rows, position: int) -> int:
    return int(rows.document_of(np.array([position]))[0])
