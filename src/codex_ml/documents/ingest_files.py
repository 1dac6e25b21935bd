"""The typed definition of the file in which `ingest` describes the corpus.

Used by: ingest, which writes it, and report.
"""

from __future__ import annotations

from codex_ml.core.contract import Contract


class IngestDetails(Contract):
    """reports/ingest/details.json: numbers and reasons only, because the policy has not seen the documents yet.

    Attributes:
        megabytes: 10^6 bytes of UTF-8.
        refused: number of records and files that did not become a document.
        refused_by_reason: the same number by reason, without what the records hold (`core.errors.Reason.kind`).
    """

    written_by = "ingest"

    documents: int
    megabytes: float
    refused: int
    refused_by_reason: dict[str, int]
