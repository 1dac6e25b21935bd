"""Text that the model writes: what the text policy finds in it.

Used by: safety_audit.battery.
"""

from __future__ import annotations

from codex_ml.inference.audit_files import AuditFinding, AuditNumber, AuditPart, GeneratedSample, finding_id
from codex_ml.inference.generation import sample_texts
from codex_ml.safety_audit.audit_job import AuditJob, PartResult
from codex_ml.statistics.bootstrap import clopper_pearson

NAME, TITLE = "generated", "Generated text"


def generated_text(job: AuditJob) -> PartResult:
    """Sample texts, scan them, and store them redacted."""
    count, settings = job.settings.sizes.samples, job.settings
    texts = sample_texts(
        job.subject.model, job.subject.tokenizer, count=count, tokens=settings.sample_tokens, seed=job.seed
    )
    findings, holding = [], 0
    for number, text in enumerate(texts):
        found = [finding for finding in job.scanner.scan(text) if finding.action != "allow"]
        holding += bool(found)
        findings += [
            AuditFinding(
                id=finding_id("generated.secrets", finding.rule, number, finding.line, finding.column),
                number="generated.secrets",
                kind=finding.rule,
                severity=finding.severity,
                source="generated",
                path=str(number),
                line=finding.line,
                column=finding.column,
            )
            for finding in found
        ]
    limits = clopper_pearson(holding, count, confidence=settings.confidence)
    numbers = {
        "secrets": AuditNumber(value=holding / count, low=limits.low, high=limits.high, trials=count, unit="share")
    }
    samples = [
        GeneratedSample(sample=number, prompt="", text=job.clean(text), **({"raw": text} if settings.keep_raw else {}))
        for number, text in enumerate(texts)
    ]
    return PartResult(NAME, AuditPart(title=TITLE, numbers=numbers), findings, samples)
