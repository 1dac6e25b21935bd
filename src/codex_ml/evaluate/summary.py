"""Compute the numbers and tables of reports/evaluate from the scores of documents."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from codex_ml.core.errors import safe_text
from codex_ml.documents.document import Document
from codex_ml.evaluate.config import Evaluate
from codex_ml.inference.evaluate_files import DocumentScore, Evaluation
from codex_ml.inference.likelihood import Score, bits_per_byte, perplexity
from codex_ml.statistics.bootstrap import bootstrap_ratio

ZLIB_LEVEL = 9
DIGITS = 6  # metrics are compared across commits; further digits depend on the rounding of the hardware


def document_score(document: Document, text: str, score: Score) -> DocumentScore:
    """Return the numerators and denominators of the scores of one document, of which `text` is scored."""
    data = text.encode("utf-8")
    return DocumentScore(
        id=document.id,
        source=document.source,
        path=document.path,
        bytes=len(data),
        tokens=score.tokens,
        nll=round(score.nll, 3),
        correct=score.top1,
        zlib_bits=8 * len(zlib.compress(data, ZLIB_LEVEL)),
    )


def summary(
    rows: Sequence[DocumentScore], settings: Evaluate, *, seed: int, lossy: int = 0, chats: int = 0
) -> Evaluation:
    """Return the metrics of a test split: ratios of sums over documents, with bootstrap intervals.

    Args:
        lossy: number of documents that the tokenizer does not reproduce. If it is above 0, bits per byte is absent and
            `lossy` gives the reason: the tokens leave out text, so they cost too little.
        chats: number of documents that are chats; they are scored as plain text. Left out if it is 0.
    """
    table = _table(rows)
    bits, size, tokens = bits_per_byte(table["nll"], 1), table["bytes"], table["tokens"]

    def ratio(above: pd.Series, below: pd.Series) -> float:
        return round(float(above.sum() / below.sum()), DIGITS)

    def interval(above: pd.Series, below: pd.Series) -> dict[str, float]:
        found = bootstrap_ratio(above, below, resamples=settings.bootstrap, confidence=settings.confidence, seed=seed)
        return {"low": round(found.low, DIGITS), "high": round(found.high, DIGITS)}

    result: dict[str, Any] = {
        "token_accuracy": ratio(table["correct"], tokens),
        "zlib_bits_per_byte": ratio(table["zlib_bits"], size),
        "documents": len(table),
        "bytes": int(size.sum()),
        "tokens": int(tokens.sum()),
        "interval": {"token_accuracy": interval(table["correct"], tokens)},
    }
    if chats:
        result["chats"] = chats
    if lossy:
        reason = f"no bits per byte: the tokenizer does not give {lossy} of {len(rows)} test documents back"
        result["lossy"] = {"documents": lossy, "reason": reason}
    else:
        result["bits_per_byte"] = ratio(bits, size)
        result["interval"]["bits_per_byte"] = interval(bits, size)
        result["interval"]["bits_per_byte_minus_zlib"] = interval(bits - table["zlib_bits"], size)
    # JSON has no infinity: a missing perplexity is not finite
    if (value := perplexity(float(table["nll"].sum()), int(tokens.sum()))) is not None:
        result["perplexity"] = round(value, DIGITS)
    return Evaluation.model_validate(result)


def _table(rows: Sequence[DocumentScore]) -> pd.DataFrame:
    return pd.DataFrame([row.as_json() for row in rows])


def by_source(rows: Sequence[DocumentScore], *, lossy: int = 0) -> str:
    """Return a CSV of bits per byte by source, sorted by source: the model's (empty if `lossy`) and zlib's.

    Control characters in the name of a source become escapes: pandas does not quote a lone carriage return, and the
    commit hook for line endings refuses a file that holds one.
    """
    groups = _table(rows).groupby("source")
    size = groups["bytes"].sum()
    table = pd.DataFrame(
        {
            "bits_per_byte": math.nan if lossy else bits_per_byte(groups["nll"].sum(), size),
            "zlib_bits_per_byte": groups["zlib_bits"].sum() / size,
            "documents": groups.size(),
        }
    )
    return table.rename(index=safe_text).to_csv(float_format="%.4f", lineterminator="\n")
