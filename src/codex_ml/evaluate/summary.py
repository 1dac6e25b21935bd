"""From the scores of documents to the numbers and tables of reports/evaluate."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from codex_ml.documents.document import Document
from codex_ml.evaluate.config import Evaluate
from codex_ml.inference.likelihood import Score, bits_per_byte, perplexity
from codex_ml.statistics.bootstrap import bootstrap_ratio

ZLIB_LEVEL = 9
DIGITS = 6  # metrics are compared across commits; digits beyond that are rounding of the hardware


def document_row(document: Document, score: Score) -> dict[str, Any]:
    """Numerators and denominators of one document, for reports/evaluate/documents.ndjson."""
    data = document.content.encode("utf-8")
    return {
        "id": document.id,
        "source": document.source,
        "path": document.path,
        "bytes": len(data),
        "tokens": score.tokens,
        "nll": round(score.nll, 3),
        "correct": score.correct,
        "zlib_bits": 8 * len(zlib.compress(data, ZLIB_LEVEL)),
    }


def summary(
    rows: Sequence[dict[str, Any]], settings: Evaluate, *, seed: int, lossy: int = 0, chats: int = 0
) -> dict[str, Any]:
    """The metrics of a test split: ratios of sums over documents, each with its bootstrap interval.

    Args:
        lossy: documents that the tokenizer does not give back. Where there are some, bits per byte are absent and
            `lossy` says why: the tokens cost less than the text, by what they leave out.
        chats: documents that are chats, which are scored as plain text; stated where there are some.
    """
    nll, size, tokens, correct, zlib_bits = (
        [row[key] for row in rows] for key in ("nll", "bytes", "tokens", "correct", "zlib_bits")
    )
    bits = [bits_per_byte(value, 1) for value in nll]

    def interval(above: list[float], below: list[float]) -> dict[str, float]:
        found = bootstrap_ratio(above, below, resamples=settings.bootstrap, confidence=settings.confidence, seed=seed)
        return {"low": round(found.low, DIGITS), "high": round(found.high, DIGITS)}

    result: dict[str, Any] = {
        "token_accuracy": round(sum(correct) / sum(tokens), DIGITS),
        "zlib_bits_per_byte": round(sum(zlib_bits) / sum(size), DIGITS),
        "documents": len(rows),
        "bytes": sum(size),
        "tokens": sum(tokens),
        "interval": {"token_accuracy": interval(correct, tokens)},
    }
    if chats:
        result["chats"] = chats
    if lossy:
        reason = f"no bits per byte: the tokenizer does not give {lossy} of {len(rows)} test documents back"
        result["lossy"] = {"documents": lossy, "reason": reason}
    else:
        result["bits_per_byte"] = round(sum(bits) / sum(size), DIGITS)
        result["interval"]["bits_per_byte"] = interval(bits, size)
        difference = [b - z for b, z in zip(bits, zlib_bits, strict=True)]
        result["interval"]["bits_per_byte_minus_zlib"] = interval(difference, size)
    if (value := perplexity(sum(nll), sum(tokens))) is not None:  # JSON has no infinity: a missing one is not finite
        result["perplexity"] = round(value, DIGITS)
    return result


def by_source(rows: Sequence[dict[str, Any]], *, lossy: int = 0) -> str:
    """CSV of bits per byte by source, the model's and zlib's, sorted by source; none of the model where `lossy`."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["source"]].append(row)
    lines = ["source,bits_per_byte,zlib_bits_per_byte,documents"]
    for source, members in sorted(groups.items()):
        size = sum(row["bytes"] for row in members)
        model = bits_per_byte(sum(row["nll"] for row in members), size)
        plain = sum(row["zlib_bits"] for row in members) / size
        name = '"' + source.replace('"', '""') + '"' if any(c in source for c in ',"\r\n') else source
        lines.append(f"{name},{'' if lossy else f'{model:.4f}'},{plain:.4f},{len(members)}")
    return "\n".join(lines) + "\n"
