"""The signals of a text: numbers that `ingest` stores with each document, and `split` compares with its limits.

Used by: ingest, split.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

NOT_APPLICABLE = -1.0  # a share that has no meaning for a language; not NaN, because JSON has none


@dataclass(frozen=True, slots=True)
class Signals:
    """Measurements of a text. Shares are fractions in [0, 1] of its characters; 0 for the empty text.

    Attributes:
        bytes: length in UTF-8.
        characters: number of code points.
        lines: number of lines. A line ends at LF, CR LF or CR; text after the last line end is one more line.
        max_line_length, mean_line_length: in characters, without the line end.
        alphanumeric_share, alphabetic_share: by `str.isalnum` and `str.isalpha`, so letters of every script count.
        digit_share: characters that are alphanumeric but not alphabetic.
        comment_share: fraction of the lines that begin with a comment; NOT_APPLICABLE for a language whose comments we
            do not know. A line inside a block comment counts if it begins with `*`.
        compression_ratio: bytes after LZ4 divided by bytes before, for the first 16 KiB; 1.0 for the empty text. Code
            of the sample has 0.25 to 0.8, one line repeated many times 0.01, base64 1.0.
        generated: True when one of the first 10 lines (at most 8 KiB) says that a program wrote the file.
        xml_header: True when the first 100 characters hold `<?xml`.
        html_text_share: characters outside tags, comments, scripts and styles; NOT_APPLICABLE for other languages.
        blob_share: characters in runs of at least 60 characters of the base64 alphabet, which includes hexadecimal.
    """

    bytes: int
    characters: int
    lines: int
    max_line_length: int
    mean_line_length: float
    alphanumeric_share: float
    alphabetic_share: float
    digit_share: float
    comment_share: float
    compression_ratio: float
    generated: bool
    xml_header: bool
    html_text_share: float
    blob_share: float


SIGNALS = tuple(field.name for field in fields(Signals))
