"""Estimate how long an audit will take, before the work: the parts' work, divided by rates that a short probe measures.

The probe scores one batch of windows, writes one batch of a few tokens, scans some text of the training documents, and
searches a piece of the train stream. So the estimate follows the model, the machine and the data; only small fixed
times are constants.
Used by: safety_audit.battery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from codex_ml.core.progress import duration
from codex_ml.documents.document import read_documents
from codex_ml.inference.near_verbatim_beam import BeamSearch
from codex_ml.modeling.canary_files import planted_canaries

if TYPE_CHECKING:
    from pathlib import Path

    from codex_ml.safety_audit.audit_job import AuditJob

PROBE_TOKENS = 8  # per text
PROBE_CHARACTERS = 300_000
IMPORT_SCIPY = 1.0  # seconds
FILTERS = 0.5  # seconds for the labelled prompts and answers, which are the same for every model
PROBE_STREAM, PROBE_SEARCHED = 1 << 19, 64  # tokens, and windows that are looked for in them
GROWTH = 0.002  # by which each token before it makes a token of a text slower (measured on the sample: 25 % of 128)
COPY_WIDTHS = 20  # the longest copy of each text is found by halving, so many widths are tried (measured)
PLANTED_SECONDS = 0.6  # to make and scan the planted secrets
SCANNED_CODE_SECONDS = 0.002  # per text: a process of ruff
SPREAD = 1.15  # a pass takes so much longer with mean and deviation of each prediction
SEARCHED = 0.01  # share of windows whose near-verbatim mass is worth a search, where a model memorises little
BOOTSTRAPS = 0.5  # seconds, of the areas of membership inference and its classifier


@dataclass(frozen=True)
class Work:
    """What one part has to do.

    Attributes:
        scored: tokens that the model reads in teacher-forced windows.
        written: tokens that it writes, one after the other, in batches of texts.
        scanned: characters that the text policy scans.
        searched: tokens of the train stream that a search reads, once per width of the windows that it looks for.
        seconds: everything else.
    """

    scored: int = 0
    written: int = 0
    scanned: int = 0
    searched: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What this machine does per second with this model; see `Work`."""

    scored: float
    written: float
    scanned: float
    searched: float

    def seconds(self, work: Work) -> float:
        """How long the work takes."""
        model = work.scored / self.scored + work.written / self.written
        return work.seconds + model + work.scanned / self.scanned + work.searched / self.searched


def work_of(job: AuditJob) -> dict[str, Work]:
    """The work of each part, by name, from the sizes of the job; nothing for a part that will be skipped."""
    settings, data = job.settings, job.data
    sizes = settings.sizes
    both = data.train_rows is not None and data.held_out_rows is not None
    nothing, stream = Work(), 0 if data.train_rows is None else len(data.train_rows.tokens)
    return {
        "data": Work(scanned=_bytes_of(data.train), seconds=PLANTED_SECONDS) if data.train else nothing,
        "memorisation": _memorisation(job) if both else nothing,
        "near_verbatim": _near_verbatim(job) if both else nothing,
        "canaries": _canaries(job),
        "membership": _membership(job) if both else nothing,
        "filters": Work(seconds=FILTERS),
        "generated": Work(
            written=sizes.samples * settings.sample_tokens, searched=COPY_WIDTHS * stream, seconds=PLANTED_SECONDS / 2
        ),
        "insecure_code": Work(seconds=2 * SCANNED_CODE_SECONDS * sizes.samples),
        "refusals": _refusals(job),
    }


def _memorisation(job: AuditJob) -> Work:
    """Windows of train and held-out text, a part of them with each other context, and the greedy control twice."""
    from codex_ml.safety_audit.extraction_tables import asked_for_curve, prefix_lengths
    from codex_ml.safety_audit.memorisation import CONTROL_WINDOWS

    settings, rows = job.settings, job.data.train_rows
    length = settings.prefix_tokens + settings.suffix_tokens
    contexts = [] if rows is None else prefix_lengths(job, rows)
    curve = sum(context + settings.suffix_tokens for context in contexts)
    return Work(
        scored=2 * (settings.sizes.windows * length + asked_for_curve(job) * curve + CONTROL_WINDOWS * length),
        written=CONTROL_WINDOWS * settings.suffix_tokens,
        searched=2 * (0 if rows is None else len(rows.tokens)),
    )


def _near_verbatim(job: AuditJob) -> Work:
    """All windows with the spread of each prediction, which membership reads too, and searches for a few of them."""
    settings = job.settings
    windows = 2 * settings.sizes.windows
    return Work(
        scored=round(SPREAD * windows * (settings.prefix_tokens + settings.suffix_tokens)),
        written=round(SEARCHED * windows) * BeamSearch.width * settings.suffix_tokens,
    )


def _canaries(job: AuditJob) -> Work:
    planted = planted_canaries(job.data.packed) if job.data.packed and job.subject.training else None
    if planted is None:
        return Work()
    secrets = job.settings.sizes.references + len(planted.planted) + len(planted.controls)
    return Work(scored=secrets * (planted.frame.most_tokens + 1), seconds=IMPORT_SCIPY)


def _refusals(job: AuditJob) -> Work:
    from codex_ml.safety_audit.chat_refusals import HARMFUL, HARMLESS, answer_tokens

    if job.subject.tokenizer.chat_template is None:
        return Work()
    return Work(written=(len(HARMFUL) + len(HARMLESS)) * answer_tokens(job))


def _membership(job: AuditJob) -> Work:
    """Windows of two controls, and all windows with a reference model; near_verbatim has scored them with the model."""
    from codex_ml.safety_audit.membership_controls import OWN_WINDOWS, UNSEEN_DOCUMENTS

    settings = job.settings
    length = settings.prefix_tokens + settings.suffix_tokens
    compared = 2 * settings.sizes.windows if job.subject.reference.load else 0
    return Work(
        scored=round(SPREAD * (UNSEEN_DOCUMENTS + 2 * OWN_WINDOWS + compared) * length),
        written=OWN_WINDOWS * settings.suffix_tokens,
        seconds=BOOTSTRAPS,
    )


def _bytes_of(documents: Path) -> int:
    """Bytes of the texts, from the footer of their file."""
    from codex_ml.modeling.examples import BYTES_PER_TOKEN, rough_tokens

    return rough_tokens(documents) * BYTES_PER_TOKEN


def measured_rates(job: AuditJob) -> Rates:
    """Measure the rates with a short probe, whose results are thrown away."""
    return Rates(
        scored=_scored_rate(job), written=_written_rate(job), scanned=_scanned_rate(job), searched=_searched_rate(job)
    )


def _scored_rate(job: AuditJob) -> float:
    import numpy as np

    from codex_ml.inference.likelihood import Scoring, Window, score_windows

    length = job.settings.prefix_tokens + job.settings.suffix_tokens
    ids = np.random.Generator(np.random.PCG64(0)).integers(
        0, job.subject.tokenizer.vocab_size, (job.settings.batch_size, length)
    )
    windows = [Window(row.astype(np.int64), np.ones(length - 1, dtype=bool)) for row in ids]
    scoring = Scoring(length - 1, batch_size=job.settings.batch_size)

    def score(count: int) -> float:
        return _seconds(lambda: list(score_windows(job.subject.model, windows[:count], scoring)))

    score(1)  # the first pass of a process sets up its threads and buffers
    one = score(1)
    if one > 1:  # a large model: one window is enough
        return length / one
    return len(windows) * length / score(len(windows))


def _written_rate(job: AuditJob) -> float:
    from codex_ml.inference.generation import Prompt, generate
    from codex_ml.inference.sampling import Sampling
    from codex_ml.safety_audit.audit_memory import TOGETHER

    model, tokenizer = job.subject.model, job.subject.tokenizer
    count, tokens = TOGETHER * job.settings.batch_size, min(PROBE_TOKENS, job.settings.sample_tokens)
    count = min(count, job.settings.sizes.samples)
    prompts = [Prompt((tokenizer.begin,), key="", sample=number) for number in range(count)]
    sampling = Sampling(tokens, temperature=1.0)
    texts = list[int]()

    def write() -> None:
        texts.extend(
            len(text.tokens) for text in generate(model, tokenizer, prompts, sampling, seed=0, batch_size=count)
        )

    seconds = _seconds(write)
    return max(sum(texts), 1) / seconds / (1 + GROWTH * job.settings.sample_tokens)


def _scanned_rate(job: AuditJob) -> float:
    if job.data.train is None:
        return float("inf")
    texts, characters = [], 0
    for document in islice(read_documents(job.data.train), 1000):
        texts.append(document.content)
        characters += len(document.content)
        if characters > PROBE_CHARACTERS:
            break
    return max(characters, 1) / _seconds(lambda: [job.scanner.scan(text) for text in texts])


def _searched_rate(job: AuditJob) -> float:
    from codex_ml.safety_audit.window_index import occurrences

    if job.data.train_rows is None:
        return float("inf")
    stream = job.data.train_rows.tokens[:PROBE_STREAM]
    step = max(1, len(stream) // PROBE_SEARCHED)
    windows = [stream[begin : begin + job.settings.prefix_tokens] for begin in range(0, len(stream), step)]
    return len(stream) / _seconds(lambda: occurrences(stream, windows))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return max(time.perf_counter() - started, 1e-6)


def estimate(job: AuditJob) -> str:
    """One line about how long the audit will take; it runs the probe, which takes about a second."""
    rates = measured_rates(job)
    seconds = {name: rates.seconds(work) for name, work in work_of(job).items()}
    longest = max(seconds, key=lambda name: seconds[name])
    sizes = job.settings.sizes
    return (
        f"about {duration(sum(seconds.values()))} (size {job.settings.size}: {sizes.windows} windows of train and "
        f"as many of held-out text, {sizes.samples} texts; longest part: {longest}, {duration(seconds[longest])})"
    )
