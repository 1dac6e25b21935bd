"""Drop documents of low quality, by limits on their signals.

The limits follow earlier code models: Codex (Chen et al. 2021, arXiv:2107.03374, section 3.1) for line lengths, letters
and generated files; StarCoder (Li et al. 2023, arXiv:2305.06161, section 3) for XML and HTML. Used by: split.screen.
"""

from __future__ import annotations

from collections.abc import Iterator

from codex_ml.documents.signals import Signals
from codex_ml.split.config import Limits, Quality


def limits_of(thresholds: Quality, language: str) -> Limits:
    """The limits for a language: its own where it sets them, the general ones for all others."""
    own = thresholds.languages.get(language.lower())
    if own is None or not own.model_fields_set:
        return thresholds
    return thresholds.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def drop_reason(signals: Signals, thresholds: Quality, language: str) -> str:
    """Name of the first limit that a text exceeds; "" if the text is kept. The names are frozen between versions."""
    limits = limits_of(thresholds, language)
    return next((reason for reason, dropped in _verdicts(signals, limits) if dropped), "")


def _verdicts(s: Signals, limits: Limits) -> Iterator[tuple[str, bool]]:
    yield "longest line", _above(s.max_line_length, limits.max_line_length)
    yield "mean line", _above(s.mean_line_length, limits.max_mean_line_length)
    yield "few letters", _below(s.alphanumeric_share, limits.min_alphanumeric_share)
    yield "few alphabetic characters", _below(s.alphabetic_share, limits.min_alphabetic_share)
    yield "many digits", _above(s.digit_share, limits.max_digit_share)
    yield "few comments", s.comment_share >= 0 and _below(s.comment_share, limits.min_comment_share)
    yield "many comments", _above(s.comment_share, limits.max_comment_share)
    yield "repetition", _below(s.compression_ratio, limits.min_compression_ratio)
    yield "encoded data", _above(s.blob_share, limits.max_blob_share)
    yield "little visible text", s.html_text_share >= 0 and _below(s.html_text_share, limits.min_html_text_share)
    yield "few lines", _below(s.lines, limits.min_lines)
    yield "many lines", _above(s.lines, limits.max_lines)
    yield "generated", limits.drop_generated and s.generated
    yield "XML", limits.drop_xml and s.xml_header


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def _below(value: float, limit: float | None) -> bool:
    return limit is not None and value < limit
