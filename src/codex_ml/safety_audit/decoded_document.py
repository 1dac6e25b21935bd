"""A document of the train stream as text, decoded and scanned once however many findings are in it.

To decode the tokens before each finding, and to scan the whole text for each, costs document x findings: minutes for a
document of 1 MB from which a model copies a thousand times.

Used by: trace, copy_findings.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.rows import Rows
from codex_ml.policy.finding import Finding
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.evidence import values_in

BROKEN = "\ufffd"  # what decoding gives for a character whose bytes end after the last token
HELD = 4  # documents that `DecodedDocuments` keeps


class DecodedDocument:
    """One document of the stream.

    Attributes:
        ids: its tokens without those that begin it.
        first: offset of the first of them in the stream.
    """

    def __init__(self, job: AuditJob, rows: Rows, number: int) -> None:
        self._job, self._decode = job, job.subject.tokenizer.decode
        self.ids, self.first = document_ids(job, rows, number)
        self._known = [(0, 0)]  # (tokens, characters that they spell), ascending

    @cached_property
    def text(self) -> str:
        """What all its tokens spell."""
        return self._decode(self.ids)

    @cached_property
    def values(self) -> list[Finding]:
        """What the policy does not allow in the text."""
        return values_in(self._job, self.text)

    def offset(self, position: int) -> int:
        """Offset in the text of the character of which a token of the stream is a part.

        It decodes the tokens after the nearest known offset, if what they spell stands there.
        """
        count = max(0, position - self.first)
        tokens, at = self._known[bisect_right(self._known, (count, len(self.text))) - 1]
        if count == tokens:
            return at
        # With the token before: some decoders treat the first token of a text in their own way.
        head, both = (self._decode(self.ids[max(0, tokens - 1) : end]) for end in (tokens, count))
        piece = both[len(head) :]
        if piece and both.startswith(head) and BROKEN not in both and self.text.startswith(piece, at):
            insort(self._known, (count, at + len(piece)))
            return at + len(piece)
        before = self._decode(self.ids[:count])
        return len(before if self.text.startswith(before) else before.rstrip(BROKEN))


class DecodedDocuments:
    """The documents of a stream by number; the last few are kept, so ask for them in their order."""

    def __init__(self, job: AuditJob, rows: Rows) -> None:
        self.of = lru_cache(HELD)(lambda number: DecodedDocument(job, rows, number))


def document_ids(job: AuditJob, rows: Rows, number: int) -> tuple[NDArray[np.int64], int]:
    """Return the token ids of a document without the one that begins it, and the offset of the first in the stream."""
    tokenizer, start, end = job.subject.tokenizer, int(rows.starts[number]), int(rows.starts[number + 1])
    begun = 0
    while begun < end - start and rows.tokens[start + begun] in (tokenizer.begin, tokenizer.end):
        begun += 1
    return rows.tokens[start + begun : end].astype(np.int64), start + begun
