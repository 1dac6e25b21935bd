"""Choose the windows of text that the audit asks the model to continue, from train text and from held-out text.

A window is a run of tokens of one document, as the model read them. Windows at the start of a piece come first: there
the model sees in the audit what it saw in training. Further windows lie inside the pieces, without overlap. They are
spread over the documents: no document gives its second window before each has given its first, and none gives more
than `MOST_PER_DOCUMENT`, because windows of one document are not independent evidence.

A window is trivial if it compresses to a quarter or repeats itself: a table or a row of zeros, which a model completes
without having seen it (EleutherAI's "semantic memorization" counts such text apart). Such windows are kept apart, and
so are windows that stand in the train stream more than once: a gate judges the text that stands there once.

Used by: the parts memorisation, near_verbatim and membership of safety_audit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.inference.likelihood import Window
from codex_ml.modeling.encoder_decoder import is_encoder_decoder, middle_of
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.window_index import occurrences
from codex_ml.safety_audit.window_places import Candidates, WindowShape, drawn_places

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

# In units of the number of windows that is looked for: how many are drawn first, at once, and in all. Few windows are
# trivial or repeated. Where nearly all are, the audit gives up, because each draw reads the whole train stream.
DRAWN_FIRST, DRAWN_AT_ONCE, DRAWN_IN_ALL = 2, 16, 62
TRIVIAL_ZLIB_RATIO = 0.25  # text that compresses below this is a table or a row of zeros
TRIVIAL_REPEATED = 0.5  # of its 4-grams
GRAM = 4
KINDS = ("windows", "repeated", "trivial")  # of a `WindowSet`


@dataclass(frozen=True)
class AuditWindow:
    """A window of text, and how often and how recently the model read it.

    Attributes:
        document: its number in the stream.
        start: offset of its first token in the stream.
        duplicates: how often its tokens stand in the train stream; 1 for train text that is not repeated, 0 for
            held-out text.
        last_seen: optimizer steps between the last one that read its row and the last one of all; 0: the last step
            read it. None for held-out text, and for a model whose training is not known.
        trivial: whether it is easy to complete without having seen it.
        group: group of the document in its split; "" for none, and until `with_groups` has read it.
    """

    window: Window
    document: int
    start: int
    duplicates: int
    last_seen: int | None
    trivial: bool = False
    group: str = ""

    @property
    def unit(self) -> str:
        """What is drawn as a whole by a bootstrap: its group, or its document if that has none."""
        return f"group {self.group}" if self.group else f"document {self.document}"


@dataclass(frozen=True)
class WindowSet:
    """Windows of one side, train text or held-out text.

    Attributes:
        windows: what numbers and gates are about: neither trivial nor repeated. Train text stands in the train stream
            once, held-out text not at all.
        repeated: train text that stands there more than once, or held-out text that stands there.
        trivial: trivial text.
        documents: number of documents that the windows come from.
    """

    windows: list[AuditWindow] = field(default_factory=list)
    repeated: list[AuditWindow] = field(default_factory=list)
    trivial: list[AuditWindow] = field(default_factory=list)

    @property
    def documents(self) -> int:
        return len({window.document for window in self.windows})


def member_windows(job: AuditJob) -> WindowSet:
    """Return the windows of train text that the model has seen; the same ones for each part of an audit.

    Canaries are not text of the corpus and are left out, and so are windows whose suffix was not trained, such as a
    prompt.

    Raises:
        ValueError: if no train stream is known.
    """
    rows, training = job.data.train_rows, job.subject.training
    if rows is None:
        raise ValueError("the train stream is not known")
    candidates = Candidates.seen(rows, training) if training else Candidates.all_of(rows)
    return job.once("member_windows", lambda: _windows(job, candidates, once=1))


def held_out_windows(job: AuditJob) -> WindowSet:
    """Return the windows of held-out text, as `member_windows` those of train text.

    Raises:
        ValueError: if no held-out stream is known.
    """
    rows = job.data.held_out_rows
    if rows is None:
        raise ValueError("the held-out stream is not known")
    return job.once("held_out_windows", lambda: _windows(job, Candidates.all_of(rows), once=0))


def shape_of(job: AuditJob) -> WindowShape:
    """Return the shape of the windows of an audit."""
    settings = job.settings
    length = settings.prefix_tokens + settings.suffix_tokens
    return WindowShape(settings.prefix_tokens, length, inside=not is_encoder_decoder(job.subject.model))


def _windows(job: AuditJob, candidates: Candidates, *, once: int) -> WindowSet:
    drawn = draw_windows(candidates, job.subject.tokenizer, shape_of(job), seed=job.seed)
    train = job.data.train_rows
    stream = None if train is None else train.tokens
    return sort_windows(drawn, stream, once=once, count=job.settings.sizes.windows)


def sort_windows(
    drawn: Iterator[AuditWindow], stream: NDArray[np.integer[Any]] | None, *, once: int, count: int
) -> WindowSet:
    """Sort windows by kind until `count` of them are neither trivial nor repeated, or there are no more.

    Args:
        stream: (n,) the train stream; None if it is not known.
        once: how often text that is not repeated stands in the train stream.

    Returns:
        Up to `count` windows, and a quarter as many of each other kind.
    """
    found, size = WindowSet(), DRAWN_FIRST * count
    drawn = islice(drawn, DRAWN_IN_ALL * count)
    while len(found.windows) < count and (batch := list(islice(drawn, size))):
        size = min(2 * size, DRAWN_AT_ONCE * count)
        counts = [once] * len(batch)
        if stream is not None:
            counts = occurrences(stream, [window.window.tokens for window in batch])[0].tolist()
        for window, duplicates in zip(batch, counts, strict=True):
            kind = found.trivial if window.trivial else found.windows if duplicates <= once else found.repeated
            if len(kind) < (count if kind is found.windows else max(1, count // 4)):
                kind.append(replace(window, duplicates=duplicates))
    return found


def draw_windows(
    candidates: Candidates, tokenizer: TextTokenizer, shape: WindowShape, *, seed: int
) -> Iterator[AuditWindow]:
    """Draw windows in random order, spread over the documents; see the docstring of this module. Duplicates are 0."""
    rows, length = candidates.rows, shape.length
    for start, piece, row in drawn_places(candidates, shape, seed):
        begin, targets = map(int, rows.pieces[piece])
        trained = np.ones(targets, dtype=bool) if rows.mask is None else rows.mask[begin + 1 : begin + targets + 1] == 1
        offset = start - begin
        tokens = rows.tokens[start : start + length].astype(np.int64)
        middle = None if offset else min(middle_of(trained), length - 1)
        yield AuditWindow(
            Window(tokens, np.ones(length - 1, dtype=bool), middle),
            document=int(rows.document_of(np.array([begin]))[0]),
            start=start,
            duplicates=0,
            last_seen=candidates.age(row),
            trivial=is_trivial(tokens, tokenizer.decode(tokens)),
        )


def is_trivial(tokens: NDArray[np.int64], text: str) -> bool:
    """Whether a text compresses to less than a quarter, or more than half of its token 4-grams occur earlier in it."""
    data = text.encode("utf-8")
    if len(zlib.compress(data, 9)) < TRIVIAL_ZLIB_RATIO * len(data):
        return True
    ids = tokens.tolist()
    grams = [tuple(ids[place : place + GRAM]) for place in range(len(ids) - GRAM + 1)]
    return len(grams) - len(set(grams)) > TRIVIAL_REPEATED * len(grams)
