"""Describe the splits: the manifest, the metrics, and a Croissant description for other tools.

Croissant 1.0 (MLCommons, https://docs.mlcommons.org/croissant/docs/croissant-spec.html) is JSON-LD: files with their
SHA-256, and the fields of their records. Used by: stages/split.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codex_ml.core.hashing import sha256_of
from codex_ml.documents.document import PUBLISHED
from codex_ml.documents.split_files import (
    BenchmarkCounts,
    Leakage,
    LeakageMetrics,
    LedgerCounts,
    Manifest,
    PolicyCounts,
    SplitContents,
    SplitMetrics,
    SplitParts,
    SplitSize,
)
from codex_ml.split.benchmarks import read_benchmarks
from codex_ml.split.candidates import PARTS
from codex_ml.split.config import Split
from codex_ml.split.split_writer import Counts
from codex_ml.split.splits import CorpusSplit, Pool

log = logging.getLogger("codex_ml")


def split_manifest(
    folder: Path, counts: Mapping[str, Counts], pool: Pool, result: CorpusSplit, params: Split, ledger: LedgerCounts
) -> Manifest:
    """Counts, bytes, hashes, licences, languages and groups per split, drop reasons, and findings of the policy.

    Args:
        folder: folder with the finished Parquet files.
    """
    unchecked = read_benchmarks(params.benchmarks).unchecked if params.benchmarks else ()
    return Manifest(
        format="codex-ml/manifest/1",
        splits=_split_parts(folder, counts),
        documents=len(pool.size),
        bytes=int(pool.size.sum()),
        dropped=dict(sorted(result.dropped().items())),
        policy=PolicyCounts(
            state=params.policy,
            findings=dict(sorted(pool.findings.items())),
            documents_redacted=int(pool.changed.sum()),
        ),
        benchmarks=BenchmarkCounts(
            files=[benchmark.path for benchmark in params.benchmarks],
            items_found=len(pool.items),
            too_short_to_check=list(unchecked),
            documents=pool.holders,
        ),
        ledger=ledger,
    )


def _split_parts(folder: Path, counts: Mapping[str, Counts]) -> SplitParts:
    parts = {}
    for part in PARTS:
        file = folder / f"{part}.parquet"
        parts[part] = SplitContents(
            **counts[part].as_dict(), file=file.name, sha256=sha256_of(file), file_bytes=file.stat().st_size
        )
    return SplitParts(**parts)


def split_metrics(manifest: Manifest, leaks: Leakage) -> SplitMetrics:
    """The few numbers that are compared between experiments."""
    sizes = {
        part: SplitSize(documents=contents.documents, megabytes=round(contents.bytes / 1e6, 3))
        for part, contents in manifest.splits
    }
    return SplitMetrics(
        **sizes,
        dropped=sum(manifest.dropped.values()),
        leakage=LeakageMetrics(
            near_cross=leaks.near_cross,
            evicted=leaks.evicted,
            quarantined=leaks.quarantined,
            random_split_leak=leaks.random_split_leak,
        ),
        policy=manifest.policy.state,
        redacted=manifest.policy.documents_redacted,
    )


def log_summary(manifest: Manifest, leaks: Leakage) -> None:
    """Log how many documents each split has, and why documents were dropped."""
    log.info("split: %s", ", ".join(f"{part} {contents.documents}" for part, contents in manifest.splits))
    if manifest.ledger.contradictions:
        log.warning(
            "split: WARNING: the ledger gives two answers for %d documents; the cleaner split counts. "
            "data/splits/contradictions.ndjson lists them",
            manifest.ledger.contradictions,
        )
    log.info("split: dropped %s", manifest.dropped)
    log.info("split: findings %s", manifest.policy.findings)
    log.info("split: a random split would have leaked %.1f %% of its test documents", 100 * leaks.random_split_leak)


def croissant(parts: SplitParts) -> dict[str, Any]:
    """A Croissant description of the splits. Nothing in it depends on time or machine."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": f"{part}-file",
            "name": f"{part}-file",
            "contentUrl": contents.file,
            "contentSize": f"{contents.file_bytes} B",
            "encodingFormat": "application/x-parquet",
            "sha256": contents.sha256,
        }
        for part, contents in parts
    ]
    records = [
        {
            "@type": "cr:RecordSet",
            "@id": part,
            "name": part,
            "description": f"{contents.documents} documents",
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{part}/{name}",
                    "name": name,
                    "dataType": "sc:Text",
                    "source": {"fileObject": {"@id": f"{part}-file"}, "extract": {"column": name}},
                }
                for name in PUBLISHED
            ],
        }
        for part, contents in parts
    ]
    licences = sorted({name for _, contents in parts for name in contents.licences})
    digest = "".join(sorted(contents.sha256 for _, contents in parts))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "codex-ml-splits",
        "description": "Documents dealt into train, val and test by codex-ml, without near-duplicates across splits.",
        "license": licences,
        "url": "https://example.org/codex-ml-splits",
        "version": f"1.0.0+{digest[:12]}",
        "distribution": files,
        "recordSet": records,
    }


CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
