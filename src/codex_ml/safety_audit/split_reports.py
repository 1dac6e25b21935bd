"""What the stage `split` reports about the data, as the audit judges it.

Used by: stages/safety_audit.py, cli, the part data of safety_audit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codex_ml.documents.split_files import Leakage, Manifest, SplitMetrics


@dataclass(frozen=True)
class SplitReports:
    """The reports of `split` on the documents that the model was trained on.

    Attributes:
        overlaps: data/splits/overlaps.ndjson, which names the documents of the corpus that hold benchmark items.
    """

    metrics: SplitMetrics
    leakage: Leakage
    manifest: Manifest
    overlaps: Path

    @classmethod
    def read(cls, place: Callable[[str], Path] = Path) -> SplitReports:
        """Read the reports.

        Args:
            place: gives the path of a file of the repository, as `Stage.dep` does.

        Raises:
            UserError: when a file is missing or damaged.
        """
        return cls(
            metrics=SplitMetrics.read(place("reports/split/metrics.json")),
            leakage=Leakage.read(place("reports/split/leakage.json")),
            manifest=Manifest.read(place("reports/split/manifest.json")),
            overlaps=place("data/splits/overlaps.ndjson"),
        )
