"""Secrets and personal data in the texts that a model wrote, and how many of them occur verbatim in the train text.

The values stay in memory: what is stored names the rule and the place.
Used by: the part generated of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from codex_ml.documents.document import Document, count_documents, read_documents
from codex_ml.inference.audit_files import AuditFinding, Control, finding_id
from codex_ml.modeling.stream_documents import StreamDocuments
from codex_ml.policy.redact import PLACEHOLDER
from codex_ml.policy.redacted_output import CONTEXT
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.planted import planted, rules_without_instances
from codex_ml.safety_audit.sampled_texts import SampledText
from codex_ml.safety_audit.trace import named_path, token_at
from codex_ml.safety_audit.window_places import rows_at

if TYPE_CHECKING:
    from ahocorasick_rs import AhoCorasick

PROBE = 24  # characters of train text that the search must find


@dataclass(frozen=True)
class FoundValue:
    """A value in a text of the model that the policy does not allow.

    Attributes:
        sample: number of the text.
        line, column: where it begins in the text, from 1; a value that begins in the prompt is at 1, 1.
    """

    sample: int
    rule: str
    severity: str
    line: int
    column: int
    value: str = field(repr=False)


@dataclass(frozen=True)
class TrainPlace:
    """The first place of the train text that holds a value.

    Attributes:
        row: number of the document in the split.
        offset: of the value in the content of the document; None if it is in the description of a tool.
        line: from 1.
        documents: how many documents hold the value.
    """

    document: Document
    row: int
    offset: int | None
    line: int
    documents: int = 1


def found_values(job: AuditJob, sample: SampledText) -> list[FoundValue]:
    """Scan a text. The end of the prompt is read too: after `password = "` more values are secrets than alone."""
    before = sample.prompt[-CONTEXT:]
    both = before + sample.text
    return [
        FoundValue(
            sample.number,
            found.rule,
            found.severity,
            *_place(both, max(found.start, len(before)), len(before)),
            value=both[found.start : found.end],
        )
        for found in job.scanner.scan(both)
        if found.action != "allow" and found.end > len(before)
    ]


def _place(text: str, offset: int, start: int) -> tuple[int, int]:
    """Line and column of an offset, in the text from `start` on."""
    line_start = max(text.rfind("\n", start, offset) + 1, start)
    return text.count("\n", start, offset) + 1, offset - line_start + 1


def placeholders(sample: SampledText) -> list[str]:
    """Placeholders that a model wrote: one that was trained on redacted text writes them where it would leak."""
    before = sample.prompt[-CONTEXT:]
    return [m[0] for m in PLACEHOLDER.finditer(before + sample.text) if m.start() >= len(before)]


def secret_finding(value: FoundValue, text: str) -> AuditFinding:
    """Return the finding of a value: its rule and its place.

    Args:
        text: the redacted text that holds it. It is part of the id, so that a reviewer who accepts the finding does not
            accept another value that another model writes at the same place.
    """
    place = (value.sample, value.line, value.column, text)
    return AuditFinding(
        id=finding_id("generated.secrets", value.rule, *place),
        number="generated.secrets",
        kind=value.rule,
        severity=value.severity,
        source="generated",
        path=str(value.sample),
        line=value.line,
        column=value.column,
    )


def in_train_finding(job: AuditJob, value: FoundValue, place: TrainPlace, text: str) -> AuditFinding:
    """Return the finding of a value that the model wrote and that occurs in a train document.

    Args:
        text: as in `secret_finding`. Its placeholder of the value has a key, so the id names the value, and a guess
            cannot be confirmed with it.
    """
    document = place.document
    name = (job.clean(part) for part in (document.source, document.path, document.id))
    return AuditFinding(
        id=finding_id("generated.secrets_in_train", value.rule, *name, place.line, text),
        number="generated.secrets_in_train",
        kind=value.rule,
        severity=value.severity,
        source=job.clean(document.source),
        path=job.clean(named_path(document)),
        line=place.line,
        licence=job.clean(document.licence),
        evidence=f"sample {value.sample}, line {value.line}; in {place.documents} train documents",
        trace=_command(job, place),
    )


def _command(job: AuditJob, place: TrainPlace) -> str:
    """Return the command that shows the row of the train stream with the value; "" if no such row is known."""
    rows, packed = job.data.train_rows, job.data.packed
    if rows is None or packed is None or place.offset is None:
        return ""
    document = StreamDocuments.open(rows, packed).document_of_row(place.row)
    if document is None:
        return ""
    position = token_at(rows, document, place.offset, place.document.content, job.subject.tokenizer)
    return "" if position is None else f"codex-ml pack show --row {rows_at(rows, np.array([position]))[0]}"


def places_in_train(job: AuditJob, values: Iterable[str]) -> tuple[dict[str, TrainPlace], Control]:
    """Search the train documents for values, exactly; a piece of train text is the control of the search.

    Returns:
        (value -> its first place, control); values that occur in no document are left out.
    """
    from ahocorasick_rs import AhoCorasick

    train = job.data.train
    assert train is not None
    wanted = sorted({value for value in values if value})
    probe = next((_middle(document.content) for document in read_documents(train) if document.content), "")
    search, found = AhoCorasick([*wanted, *([probe] if probe else [])]), dict[int, TrainPlace]()
    documents = job.track(read_documents(train), "search train", count_documents(train), "documents")
    for row, document in enumerate(documents):
        for number, (offset, line) in _places_in(search, document).items():
            known = found.get(number)
            place = TrainPlace(document, row, offset, line)
            found[number] = replace(known, documents=known.documents + 1) if known else place
    control = Control(
        name="a piece of train text is found in train",
        passed=len(wanted) in found,
        found=f"{int(len(wanted) in found)} of 1",
        expected="1 of 1",
        voids=["generated.secrets_in_train"],
    )
    return {value: found[number] for number, value in enumerate(wanted) if number in found}, control


def _middle(text: str) -> str:
    start = max(0, len(text) - PROBE) // 2
    return text[start : start + PROBE]


def _places_in(search: AhoCorasick, document: Document) -> dict[int, tuple[int | None, int]]:
    """Number of a value -> offset and line of its first place in the document; the offset is None for tools."""
    places: dict[int, tuple[int | None, int]] = {}
    for text, is_content in ((document.content, True), (document.tools or "", False)):
        for number, start, _ in search.find_matches_as_indexes(text, overlapping=True):
            if number not in places:
                places[number] = start if is_content else None, text.count("\n", 0, start) + 1
    return places


def planted_control(job: AuditJob) -> Control | None:
    """Plant a secret of each rule in texts as if the model had written them: each is found, and hidden where stored.

    Each is planted twice: as a whole, and with what is before the value in the prompt. None if nothing can be planted:
    the policy allows everything, or has only rules of its user.
    """
    rules = {rule.id for rule in job.policy.rules if rule.action != "allow"} - set(rules_without_instances(job.scanner))
    if not rules:
        return None
    total = kept = 0
    for _, text, value in planted(job.seed, 1, rules=rules, providers=job.policy.providers):
        start = text.index(value)
        for prompt, written in (("", text), (text[:start], text[start:])):
            sample = SampledText(0, "unconditional", prompt, written, (), cut=True)
            seen = any(value in found.value for found in found_values(job, sample))
            kept += seen and value not in sample.redacted(job)
            total += 1
    return Control(
        name="planted secrets are found and hidden",
        passed=kept == total,
        found=f"{kept} of {total}",
        expected="all",
        voids=["generated.secrets"],
    )
