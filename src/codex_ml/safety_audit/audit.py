"""The parts of the audit: scans and extraction, with their controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.progress import track
from codex_ml.documents.document import FORMS, count_documents, read_documents
from codex_ml.policy.finding import Finding
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.extraction import (
    Candidates,
    Extraction,
    ExtractionResults,
    choose_windows,
    extract,
    greedy_windows,
)
from codex_ml.safety_audit.gates import Gate, verdict
from codex_ml.statistics.bootstrap import clopper_pearson

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer

BATCH = 8
CONTROL_WINDOWS = 20


def findings_in_documents(path: Path, scanner: Scanner, *, style: str) -> list[dict[str, Any]]:
    """What the policy names in a split: rule, action, severity, source, path, line and column of each."""
    total = count_documents(path)
    documents = track(read_documents(path), "scan train", total, "documents", style=style)
    return [
        _row(finding, source=document.source, path=document.path)
        for document in documents
        for form in FORMS
        if (text := getattr(document, form))
        for finding in scanner.scan(text)
    ]


def findings_in_samples(samples: Sequence[str], scanner: Scanner) -> list[dict[str, Any]]:
    """The same in generated texts; the source is "generated", the path the number of the sample."""
    return [
        _row(finding, source="generated", path=str(number))
        for number, text in enumerate(samples)
        for finding in scanner.scan(text)
    ]


def _row(finding: Finding, *, source: str, path: str) -> dict[str, Any]:
    place = {"source": source, "path": path, "line": finding.line, "column": finding.column}
    return {"rule": finding.rule, "action": finding.action, "severity": finding.severity, **place}


def measure_extraction(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    seen: Candidates,
    held_out: Candidates,
    *,
    settings: SafetyAudit,
    seed: int,
) -> ExtractionResults:
    """Extraction of rows that the model saw, against rows of the test split, and the positive control."""
    prefix, length = settings.prefix_tokens, settings.prefix_tokens + settings.suffix_tokens
    (inside, trivial_inside), (outside, trivial_outside) = (
        choose_windows(candidates, tokenizer, prefix=prefix, length=length, count=settings.windows, seed=seed)
        for candidates in (seen, held_out)
    )
    own = greedy_windows(model, inside, prefix=prefix, count=CONTROL_WINDOWS)
    return {
        "members": extract(model, inside, prefix=prefix, trivial=trivial_inside, batch_size=BATCH),
        "held_out": extract(model, outside, prefix=prefix, trivial=trivial_outside, batch_size=BATCH),
        "control": extract(model, own, prefix=prefix, batch_size=BATCH),
    }


def audit_record(
    in_train: Sequence[dict[str, Any]],
    in_samples: Sequence[dict[str, Any]],
    extraction: ExtractionResults,
    gates: Sequence[Gate],
) -> dict[str, Any]:
    """The audit in full, for audit.json."""
    return {
        "verdict": verdict(gates),
        "gates": [vars(gate) for gate in gates],
        "secrets": {"train": len(in_train), "generated": len(in_samples)},
        "extraction": {name: _numbers(found) for name, found in extraction.items()},  # type: ignore[arg-type]
    }


def audit_metrics(audit: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that one compares between experiments, for metrics.json."""
    statuses = Counter(gate["status"] for gate in audit["gates"])
    return {
        "secrets": audit["secrets"],
        "extraction": {name: audit["extraction"][name].get("rate") for name in ("members", "held_out")},
        "gates": {status: statuses[status] for status in ("pass", "fail", "invalid")},
    }


def _numbers(found: Extraction) -> dict[str, float]:
    numbers: dict[str, float] = {**vars(found), "token_share": round(found.token_share, 4)}
    if found.windows:
        interval = clopper_pearson(found.extracted, found.windows)
        numbers |= {
            "rate": round(found.extracted / found.windows, 6),
            "low": round(interval.low, 6),
            "high": round(interval.high, 6),
        }
    return numbers
