"""A comparison of results as one offline page: it has no script, loads nothing, and escapes every text.

It looks like the report and protects the reader as the report does (`codex_ml.report.page`). Used by: `codex-ml
compare --html`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from codex_ml.cli.comparison_text import HEAD, counted, decimal, metric_cells, place_of, reading, size_of
from codex_ml.evaluate.result_folder import ResultFolder
from codex_ml.inference.comparison_files import ChangedItem, Comparison, Comparisons, ItemChanges
from codex_ml.inference.evaluate_files import RESULTS, table_stem
from codex_ml.report.page import TEMPLATE as REPORT
from codex_ml.report.page import page_template, style_hash, style_of

TEMPLATE = Path(__file__).parent / "comparison.html.jinja"


@dataclass(frozen=True)
class Links:
    """Where the rows of two results are, seen from the page.

    Attributes:
        a, b: path of the result folder relative to the page; "" where no folder of the user holds it.
    """

    a: str
    b: str

    def row(self, change: ItemChanges, item: ChangedItem, side: str) -> dict[str, str]:
        """The text and the target of a link to a row."""
        folder, row = (self.a, item.row_a) if side == "a" else (self.b, item.row_b)
        target = f"{folder}/{RESULTS}/{table_stem(change.task)}.ndjson" if folder else ""
        return {"text": f"{side.upper()}: {place_of(change.task, row)}", "href": quote(target)}


def render_comparison(found: Comparisons, results: Sequence[ResultFolder], folder: Path) -> str:
    """Return the page; equal comparisons give equal text.

    Args:
        results: as they were compared, the first with each other one.
        folder: of the page, for links.
    """
    report = REPORT.read_text(encoding="utf-8")
    first, *others = (_seen_from(folder, result) for result in results)
    return page_template(
        TEMPLATE.read_text(encoding="utf-8")
    ).render(
        policy=f"default-src 'none'; style-src '{style_hash(report)}'",
        style=Markup(style_of(report)),  # noqa: S704 - our own file, without a value
        title=" against ".join(result.name for result in reversed(results[:2])) if len(others) == 1 else "Comparison",
        head=HEAD,
        reading=reading(found),
        blocks=[(c, Links(first, other)) for c, other in zip(found.comparisons, others, strict=True)],
        cells=metric_cells,
        decimal=decimal,
        counted=counted,
        size_of=size_of,
        kinds=_kinds,
    )


def _seen_from(folder: Path, result: ResultFolder) -> str:
    """Relative path of a result folder; "" for a revision, whose files are in DVC's cache."""
    if result.side.kind in ("revision", "experiment", "model"):
        return ""
    return f"./{Path(os.path.relpath(result.folder.resolve(), folder.resolve())).as_posix()}"


def _kinds(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(difference.kind for difference in comparison.inputs))
