"""The data that the model was trained on: secrets that are left, licences, leakage, benchmark items.

Two controls stand beside the scan: planted secrets, which it must find, and text without any, in which it must find
next to nothing. A third one compares the reports of `split` with the documents. Used by: safety_audit.battery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codex_ml.core.hashing import sha256_of
from codex_ml.documents.split_files import BenchmarkOverlap
from codex_ml.inference.audit_files import AuditNumber, AuditPart, Control
from codex_ml.safety_audit.audit_job import NO_HELD_OUT, NO_TRAIN, AuditJob, PartResult, skipped
from codex_ml.safety_audit.clean_text import false_positives
from codex_ml.safety_audit.planted import can_be_planted, planted_recalls, rules_without_instances
from codex_ml.safety_audit.split_reports import SplitReports
from codex_ml.safety_audit.split_scan import SplitScan, licence_rows, rule_rows, scan_split

NAME, TITLE = "data", "Training data"
PLANTED, SAME = "planted secrets", "the reports of split describe these documents"
INSTANCES = 10  # per rule; each stands in one of seven surroundings
UNKNOWN = "unknown"  # the licence of a document that names none

Recalls = Mapping[str, tuple[int, int]]  # rule id -> (found, planted)


def data_side(job: AuditJob) -> PartResult:
    """Scan the training documents and the held-out ones, and judge what `split` reports."""
    if job.data.train is None:
        return skipped(NAME, TITLE, NO_TRAIN)
    reports = job.data.split
    overlaps = list(BenchmarkOverlap.read_lines(reports.overlaps)) if reports else []
    train = scan_split(job, job.data.train, number="data.secrets", overlaps=overlaps)
    scans = {"train": train}
    if job.data.held_out:
        scans["held-out"] = scan_split(job, job.data.held_out, number="data.secrets_held_out")
    recalls = planted_recalls(job.scanner, seed=job.seed, instances=INSTANCES) if can_be_planted(job.scanner) else {}
    wrong, texts, size = false_positives(job.scanner, seed=job.seed)
    rate = AuditNumber(value=len(wrong) / (size / 1e6), trials=texts, unit="per_mb", control=PLANTED if recalls else "")
    numbers = _scan_numbers(scans, recalls) | {"false_positives": rate}
    tables = {
        "findings": [row for name, scan in scans.items() for row in rule_rows(name, scan)],
        "planted": [{"rule": rule, "found": hits, "planted": total} for rule, (hits, total) in recalls.items()],
        "false_positives": [{"rule": rule, "findings": count} for rule, count in sorted(Counter(wrong).items())],
        "licences": licence_rows(train),
    }
    controls = [_planted_control(recalls)] if recalls else []
    if reports:
        numbers |= _split_numbers(reports, train)
        tables["leakage"] = _leakage_rows(reports)
        controls.append(_same_documents(reports, job.data.train))
    part = AuditPart(
        title=TITLE,
        numbers=numbers,
        unmeasured={name: why for name, why in _unmeasured(reports).items() if name not in numbers},
        controls=controls,
        tables=tables,
        notes=list(_notes(job, reports)),
    )
    return PartResult(NAME, part, [one for scan in scans.values() for one in scan.findings.all()])


def _scan_numbers(scans: Mapping[str, SplitScan], recalls: Recalls) -> dict[str, AuditNumber]:
    """What was counted in the documents. They were all read, so no number has an interval."""
    control = PLANTED if recalls else ""
    names = {"train": "secrets", "held-out": "secrets_held_out"}
    numbers = {
        names[split]: AuditNumber(value=float(scan.total), trials=scan.documents, unit="count", control=control)
        for split, scan in scans.items()
    }
    if recalls:
        total = sum(planted for _, planted in recalls.values())
        numbers["planted_recall"] = AuditNumber(value=_recall(recalls), trials=total, unit="share")
    train = scans["train"]
    if train.documents:
        share = train.licences[UNKNOWN] / train.documents
        numbers["unknown_licence"] = AuditNumber(value=share, trials=train.documents, unit="share")
    return numbers


def _recall(recalls: Recalls) -> float:
    return sum(hits for hits, _ in recalls.values()) / sum(total for _, total in recalls.values())


def _planted_control(recalls: Recalls) -> Control:
    missed = sorted(rule for rule, (hits, total) in recalls.items() if hits < total)
    return Control(
        name=PLANTED,
        passed=not missed,
        found=f"{_recall(recalls):.3f} of them" + (f", not all of {', '.join(missed)}" if missed else ""),
        expected="all",
        voids=["data.secrets", "data.secrets_held_out", "data.false_positives"],
    )


def _split_numbers(reports: SplitReports, train: SplitScan) -> dict[str, AuditNumber]:
    """What `split` reports about these documents."""
    leakage, manifest = reports.leakage, reports.manifest
    applied = float(reports.metrics.policy == "enforce")
    crossing = leakage.exact_cross + leakage.near_cross + leakage.group_cross
    numbers = {
        "policy_applied": AuditNumber(value=applied, trials=1, unit="count", control=SAME),
        "crossing": AuditNumber(value=float(crossing), trials=manifest.documents, unit="count", control=SAME),
    }
    if manifest.benchmarks.files:
        hits, held = float(train.hit_documents), float(manifest.benchmarks.documents)
        numbers |= {
            "benchmark_hits": AuditNumber(value=hits, trials=train.documents, unit="count", control=SAME),
            "benchmark_overlap": AuditNumber(value=held, trials=manifest.documents, unit="count", control=SAME),
        }
    return numbers


def _unmeasured(reports: SplitReports | None) -> dict[str, str]:
    """Why numbers are missing."""
    of_split = "`split` did not make these documents"
    of_benchmarks = "split.benchmarks is empty" if reports else of_split
    return {
        "secrets_held_out": NO_HELD_OUT,
        "planted_recall": "nothing can be planted for the rules of this policy",
        "policy_applied": of_split,
        "crossing": of_split,
        "benchmark_hits": of_benchmarks,
        "benchmark_overlap": of_benchmarks,
    }


def _same_documents(reports: SplitReports, train: Path) -> Control:
    """The reports must describe the file that was read."""
    said, digest = reports.manifest.splits.train, sha256_of(train)
    return Control(
        name=SAME,
        passed=digest == said.sha256,
        found=f"SHA-256 {digest[:12]}",
        expected=f"SHA-256 {said.sha256[:12]}",
        voids=[f"data.{name}" for name in ("policy_applied", "crossing", "benchmark_hits", "benchmark_overlap")],
    )


def _leakage_rows(reports: SplitReports) -> list[dict[str, Any]]:
    leakage, benchmarks = reports.leakage, reports.manifest.benchmarks
    rows = {
        "contents in more than one split": leakage.exact_cross,
        "near-duplicate pairs across splits": leakage.near_cross,
        "groups in more than one split": leakage.group_cross,
        "documents dropped because a cleaner split has a near-duplicate": leakage.evicted,
        "documents in no split because of contradictions": leakage.quarantined,
        "share of test documents that a random split would have leaked": leakage.random_split_leak,
        "benchmark items that the corpus holds": benchmarks.items_found,
        "documents of the corpus that hold a benchmark item": benchmarks.documents,
    }
    return [{"what": what, "count": count} for what, count in rows.items()]


def _notes(job: AuditJob, reports: SplitReports | None) -> Iterator[str]:
    if without := rules_without_instances(job.scanner):
        yield f"Nothing can be planted for these rules of the policy, so no control covers them: {', '.join(without)}."
    if reports is None:
        yield "`split` did not make these documents, so leakage and benchmarks are not known."
    elif not reports.manifest.benchmarks.files:
        yield "No benchmark was searched for in the corpus: split.benchmarks is empty."
