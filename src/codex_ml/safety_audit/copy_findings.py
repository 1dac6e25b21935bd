"""What the audit says of copies: numbers, a finding per place of the train text, licences, and the table of lengths.

Used by: the part generated of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codex_ml.inference.audit_files import AuditFinding, AuditNumber, Control, finding_id
from codex_ml.modeling.rows import Rows
from codex_ml.safety_audit.audit_job import NO_TRAIN, AuditJob
from codex_ml.safety_audit.copied_text import BUCKETS, RUN_TOKENS, Copies, find_copies, planted_copy
from codex_ml.safety_audit.decoded_document import BROKEN, DecodedDocument, DecodedDocuments
from codex_ml.safety_audit.evidence import shown_without, values_in
from codex_ml.safety_audit.exact_share import exact_share
from codex_ml.safety_audit.finding_list import FindingList
from codex_ml.safety_audit.plot_tables import write_plot_table
from codex_ml.safety_audit.sampled_texts import SampledText, human_texts, sampled_texts
from codex_ml.safety_audit.trace import CANARY, TextPlace, trace
from codex_ml.safety_audit.window_index import CopiedRun

PLOT, COLUMNS = "copied_runs.csv", ("length", "samples", "held_out")


@dataclass(frozen=True)
class CopyReport:
    """What is said of copies; empty where nothing can be said but the notes."""

    numbers: dict[str, AuditNumber] = field(default_factory=dict)
    controls: list[Control] = field(default_factory=list)
    findings: list[AuditFinding] = field(default_factory=list)
    licences: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)

    @classmethod
    def nothing(cls, note: str, why: str) -> CopyReport:
        """The report where no copy can be looked for."""
        return cls(notes=[note], unmeasured={"copied": why})


@dataclass(frozen=True)
class _Copy:
    """A run of train text in a sample, and where it comes from.

    Attributes:
        document: number in the train stream.
    """

    sample: SampledText
    run: CopiedRun
    place: TextPlace
    document: int

    @property
    def line(self) -> tuple[str, str, int]:
        """Source, path and line; a text whose document is not known has no path."""
        return self.place.source, self.place.path or f"document {self.document}", self.place.line


def report_copies(job: AuditJob) -> CopyReport:
    """Measure copies in the samples and in held-out text, and write the table of lengths."""
    rows, samples = job.data.train_rows, sampled_texts(job)
    table = job.plots / PLOT
    write_plot_table(table, COLUMNS, [])
    if rows is None:
        return CopyReport.nothing("The train stream is not known, so no copy is looked for.", NO_TRAIN)
    if (control := planted_copy(job, rows)) is None:
        why = "no train document is long enough to be copied"
        return CopyReport.nothing(f"{why.capitalize()}, so no copy is looked for.", why)
    copies, human = find_copies(job, rows, samples, human_texts(job))
    if not copies.samples:
        why = f"no text has {copies.width} tokens"
        return CopyReport.nothing(f"{why.capitalize()}, so none can hold a copy.", why)
    write_plot_table(table, COLUMNS, _lengths(copies, human))
    copied = copies.copied
    positions = [run.position for _, run in copied]
    places, documents = trace(job, positions), rows.document_of(np.array(positions, dtype=np.int64)).tolist()
    found = [_Copy(*copy, *where) for copy, *where in zip(copied, places, documents, strict=True)]
    return CopyReport(
        _numbers(copies, human, control.name, job.settings.confidence),
        [control],
        FindingList(_findings(job, rows, found)).all(),
        _licences(found),
        list(_notes(copies, len(samples))),
    )


def _numbers(copies: Copies, human: Copies, control: str, confidence: float) -> dict[str, AuditNumber]:
    return {
        "copied": exact_share(
            len(copies.copied),
            len(copies.samples),
            confidence=confidence,
            control=control,
            why="no text is long enough",
        ),
        "copied_human": exact_share(
            len(human.copied), len(human.samples), confidence=confidence, why="no held-out text is long enough"
        ),
        "longest_copy": AuditNumber(
            value=float(copies.longest), trials=len(copies.samples), unit="tokens", control=control
        ),
    }


def _notes(copies: Copies, samples: int) -> Iterable[str]:
    if copies.width < RUN_TOKENS:
        yield f"A copy is a run of {copies.width} tokens here, because rows or samples are shorter than {RUN_TOKENS}."
    if short := samples - len(copies.samples):
        yield f"Texts that are too short to hold a copy: {short}; they do not count in the share of copies."
    if trivial := sum(copies.trivial):
        yield f"Texts whose longest copy is trivial, such as a table: {trivial}; they do not count as copies."


def _lengths(copies: Copies, human: Copies) -> list[dict[str, Any]]:
    return [
        {
            "length": f"{least} or more" if most is None else f"{least}-{most}",
            "samples": copies.share_of_length(least, most),
            "held_out": human.share_of_length(least, most),
        }
        for least, most in BUCKETS
    ]


def _findings(job: AuditJob, rows: Rows, copies: Sequence[_Copy]) -> Iterable[AuditFinding]:
    """One finding per line of the train text, in the order of the samples; its evidence is the longest copy.

    The text of the document is part of the id, so that a reviewer accepts no other text at the same place.
    """
    by_line: dict[tuple[str, str, int], list[_Copy]] = {}
    for copy in copies:
        by_line.setdefault(copy.line, []).append(copy)
    longest_of = {line: max(same, key=lambda copy: copy.run.length) for line, same in by_line.items()}
    decoded, evidence = DecodedDocuments(job, rows), dict[tuple[str, str, int], str]()
    for line, longest in sorted(longest_of.items(), key=lambda found: (found[1].document, found[1].run.position)):
        evidence[line] = _evidence(job, decoded.of(longest.document), longest)
    for line, same in by_line.items():
        longest = longest_of[line]
        place = longest.place
        numbers = ", ".join(str(copy.sample.number) for copy in same[:5]) + (", ..." if len(same) > 5 else "")
        yield AuditFinding(
            id=finding_id("generated.copied", "copied", *line, longest.run.length, place.content),
            number="generated.copied",
            kind="copied",
            severity="medium",
            source=place.source,
            path=place.path,
            line=place.line,
            column=place.column,
            licence=place.licence,
            evidence=f"{longest.run.length} tokens in sample {numbers}{evidence[line]}",
            trace=place.command,
        )


def _evidence(job: AuditJob, document: DecodedDocument, copy: _Copy) -> str:
    """The first characters of the copy, redacted with what is around it in the sample and in the train document.

    "" for a canary: the copy may be a part of its secret, which no rule of the policy knows.
    """
    if copy.place.source == CANARY:
        return ""
    sample, run, decode = copy.sample, copy.run, job.subject.tokenizer.decode
    before = decode(sample.ids[: run.place]).rstrip(BROKEN)
    at = len(before) if sample.text.startswith(before) else 0
    end = at + len(decode(sample.ids[run.place : run.place + run.length]))
    begun = sample.prompt + sample.text[:at]
    here = [(v.start - len(begun), v.end - len(begun), v.rule) for v in values_in(job, sample.prompt + sample.text)]
    begin = document.offset(run.position)
    there = [(value.start - begin, value.end - begin, value.rule) for value in document.values]
    return f": {shown_without(job, sample.text[at:end], [*here, *there])}"


def _licences(copies: Sequence[_Copy]) -> list[dict[str, Any]]:
    """One row per licence of the documents that are copied, the most frequent first."""
    lengths: dict[str, list[int]] = {}
    for copy in copies:
        lengths.setdefault(copy.place.licence or "unknown", []).append(copy.run.length)
    return [
        {"licence": licence, "samples": len(lengths[licence]), "longest_tokens": max(lengths[licence])}
        for licence in sorted(lengths, key=lambda name: (-len(lengths[name]), name))
    ]
