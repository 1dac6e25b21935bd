"""What `ingest` says of the corpus.

Used by: ingest, which writes it, and report.
"""

from __future__ import annotations

from codex_ml.core.contract import Contract


class IngestDetails(Contract):
    """reports/ingest/details.json.

    Attributes:
        megabytes: 10^6 bytes of UTF-8.
        refused: records and files that did not become a document.
        languages: documents by programming language, or "text" and the like.
    """

    written_by = "ingest"

    documents: int
    megabytes: float
    refused: int
    refused_by_reason: dict[str, int]
    languages: dict[str, int]
