"""The parts of the audit: scans and extraction, with their controls, and the record of the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from codex_ml.documents.document import FORMS, Document
from codex_ml.inference.audit_files import (
    Audit,
    AuditFinding,
    ExtractionNumbers,
    ExtractionTable,
    Gate,
    SecretCounts,
    Status,
)
from codex_ml.modeling.positions import check_length
from codex_ml.policy.detectors_lock import refuse_other_code
from codex_ml.policy.finding import Finding
from codex_ml.policy.rules import load_policy
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
from codex_ml.safety_audit.gates import verdict
from codex_ml.statistics.proportions import clopper_pearson

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer

BATCH = 8
CONTROL_WINDOWS = 20


def check_lengths(config: Any, settings: SafetyAudit) -> None:
    """Refuse windows or samples that are longer than the model can see at once.

    Args:
        config: the model's configuration.

    Raises:
        UserError: naming the key of params.yaml.
    """
    windows = "safety_audit.prefix_tokens + safety_audit.suffix_tokens"
    check_length(config, settings.prefix_tokens + settings.suffix_tokens, windows)
    check_length(config, settings.sample_tokens, "safety_audit.sample_tokens")


def scanner_of(policy: Path, lock: Path) -> Scanner:
    """Return the scanner of a policy, after a check that its detectors are those of detectors.lock.

    Raises:
        UserError: when the policy is not valid, or the code of a detector has changed.
    """
    rules = load_policy(policy)
    refuse_other_code(rules.detectors, lock)
    return Scanner(rules)


def findings_in_documents(documents: Iterable[Document], scanner: Scanner) -> list[AuditFinding]:
    """Return the findings of the policy in the documents of a split."""
    return [
        _row(finding, source=document.source, path=document.path)
        for document in documents
        for form in FORMS
        if (text := getattr(document, form))
        for finding in scanner.scan(text)
    ]


def findings_in_samples(samples: Sequence[str], scanner: Scanner) -> list[AuditFinding]:
    """Return the findings of the policy in generated texts."""
    return [
        _row(finding, source="generated", path=str(number))
        for number, text in enumerate(samples)
        for finding in scanner.scan(text)
    ]


def _row(finding: Finding, *, source: str, path: str) -> AuditFinding:
    return AuditFinding(
        rule=finding.rule,
        action=finding.action,
        severity=finding.severity,
        source=source,
        path=path,
        line=finding.line,
        column=finding.column,
    )


def measure_extraction(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    seen: Candidates,
    held_out: Candidates,
    *,
    settings: SafetyAudit,
    seed: int,
) -> ExtractionResults:
    """Measure extraction of rows that the model saw, of rows of the test split, and of the positive control."""
    prefix, length = settings.prefix_tokens, settings.prefix_tokens + settings.suffix_tokens
    (inside, trivial_inside), (outside, trivial_outside) = (
        choose_windows(candidates, tokenizer, prefix=prefix, length=length, count=settings.windows, seed=seed)
        for candidates in (seen, held_out)
    )
    own = greedy_windows(model, tokenizer, inside, prefix=prefix, count=CONTROL_WINDOWS)
    return {
        "members": extract(model, inside, prefix=prefix, trivial=trivial_inside, batch_size=BATCH),
        "held_out": extract(model, outside, prefix=prefix, trivial=trivial_outside, batch_size=BATCH),
        "control": extract(model, own, prefix=prefix, batch_size=BATCH),
    }


def audit_record(
    in_train: Sequence[AuditFinding],
    in_samples: Sequence[AuditFinding],
    extraction: ExtractionResults,
    gates: Sequence[Gate],
) -> Audit:
    """Return the content of audit.json."""
    return Audit(
        verdict=verdict(gates),
        gates=list(gates),
        secrets=SecretCounts(train=len(in_train), generated=len(in_samples)),
        extraction=ExtractionTable(
            members=_numbers(extraction["members"]),
            held_out=_numbers(extraction["held_out"]),
            control=_numbers(extraction["control"]),
        ),
    )


def audit_metrics(audit: Audit) -> dict[str, Any]:
    """Return the few numbers that people compare between experiments, for metrics.json."""
    statuses = Counter(gate.status for gate in audit.gates)
    return {
        "secrets": audit.secrets.as_json(),
        "extraction": {"members": audit.extraction.members.rate, "held_out": audit.extraction.held_out.rate},
        "gates": {status: statuses[status] for status in get_args(Status) if status != "pass"},
    }


def _numbers(found: Extraction) -> ExtractionNumbers:
    rates: dict[str, float] = {}
    if found.windows:
        interval = clopper_pearson(found.extracted, found.windows)
        rates = {
            "rate": round(found.extracted / found.windows, 6),
            "low": round(interval.low, 6),
            "high": round(interval.high, 6),
        }
    return ExtractionNumbers(
        windows=found.windows,
        extracted=found.extracted,
        token_share=round(found.token_share, 4),
        trivial=found.trivial,
        **rates,
    )
