"""A document as it may be published: every field without what the policy forbids. Only data/corpus has the raw ones.

Used by: split.screen, split.split_writer, split.contradictions, split.augment, `codex-ml ledger`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from codex_ml.core.hashing import hash_path, sha256_of
from codex_ml.core.plugin_lock import refuse_other_code
from codex_ml.documents.document import FORMS, PUBLISHED, Document
from codex_ml.policy.finding import Finding
from codex_ml.policy.key import read_key
from codex_ml.policy.nested import NestedCleaner
from codex_ml.policy.redact import placeholder, redact
from codex_ml.policy.rules import load_policy
from codex_ml.policy.scan import Scanner
from codex_ml.split.config import Split

# Fields with few distinct values; and all fields that are no content.
REPEATED = ("source", "licence", "language")
NAMES = tuple(name for name in PUBLISHED if name not in (*FORMS, "meta"))


@dataclass(frozen=True)
class ScreenSettings:
    """What a worker needs to screen documents. It is small, because every task carries it."""

    params: Split
    policy: Path | None  # None: nothing is cleaned
    key: bytes  # key of the redaction
    fingerprint: str  # of policy and benchmarks; a worker that cached other files reads them again


def screen_settings(params: Split, *, policy: Path, lock: Path, key: Path, benchmarks: Path) -> ScreenSettings:
    """Read the key, and check the policy and the detector code that it names, before any work.

    Raises:
        UserError: when a file is missing or malformed, or the code of a detector differs from `lock`.
    """
    files = hash_path(benchmarks).sha256 if benchmarks.exists() else ""
    refuse_other_code("detectors", load_policy(policy).detectors, lock)
    return ScreenSettings(params, policy, read_key(key), files + sha256_of(policy))


@dataclass(frozen=True)
class DocumentFinding:
    """A finding of the policy in a document. It does not hold the value that was found."""

    rule: str
    action: str
    severity: str
    line: int
    column: int
    placeholder: str  # text that replaces the value when it is redacted


def redacted(document: Document, settings: ScreenSettings) -> tuple[Document, list[DocumentFinding]]:
    """The document as it may be published, and the findings of the policy in it.

    Every field is cleaned. With split.policy off, its text and metadata stay as they are, but not its names (source,
    path, id, group, licence, language), which reports and files in Git repeat.

    Messages, tools and meta are cleaned as JSON values: texts, numbers and keys, each together with its name.
    """
    if settings.policy is None:
        return document, []
    scanner, nested = _scanner(settings.policy, settings.fingerprint)
    findings: list[DocumentFinding] = []
    changes: dict[str, str] = {}

    def replaced(text: str, found: list[Finding]) -> str:
        for f in found:
            mark = placeholder(f.rule, text[f.start : f.end], settings.key)
            findings.append(DocumentFinding(f.rule, f.action, f.severity, f.line, f.column, mark))
        return redact(text, found, settings.key) if found else text

    for name in NAMES if settings.params.policy == "off" else PUBLISHED:
        value: str | None = getattr(document, name)
        if not value:
            continue
        before = len(findings)
        if name in REPEATED and not _found_in(value, settings.policy, settings.fingerprint):
            continue
        if name in ("messages", "tools", "meta"):
            new = json.dumps(nested.clean(json.loads(value), replaced), ensure_ascii=False, separators=(",", ":"))
        else:
            new = replaced(value, scanner.scan(value))
        if len(findings) > before and new != value:
            changes[name] = new
    return (replace(document, **changes) if changes else document), findings


def redacted_name(name: str, settings: ScreenSettings) -> str:
    """A name of a document (see `redacted`) as it may be published."""
    if settings.policy is None:
        return name
    return redact(name, _scanner(settings.policy, settings.fingerprint)[0].scan(name), settings.key)


@lru_cache(maxsize=4096)
def _found_in(name: str, policy: Path, fingerprint: str) -> bool:
    """Whether the policy finds something in a name that many documents share."""
    return bool(_scanner(policy, fingerprint)[0].scan(name))


@lru_cache(maxsize=2)
def _scanner(policy: Path, fingerprint: str) -> tuple[Scanner, NestedCleaner]:
    scanner = Scanner(load_policy(policy))
    return scanner, NestedCleaner(scanner)
