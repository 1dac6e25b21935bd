"""What `ingest` stores about the text of each document, and `split` compares with its limits."""

from __future__ import annotations

from dataclasses import dataclass, fields

NOT_APPLICABLE = -1.0  # the value of a share that has no meaning in a language; JSON has no NaN


@dataclass(frozen=True, slots=True)
class Signals:
    """What a text looks like. Shares are of its characters and lie in [0, 1]; all are 0 for the empty text.

    Attributes:
        bytes: length in UTF-8.
        characters: number of code points.
        lines: ended by LF, CR LF or CR; text after the last end is one more.
        max_line_length, mean_line_length: characters, without the line end.
        alphanumeric_share, alphabetic_share: by `str.isalnum` and `str.isalpha`, so letters of every script count.
        digit_share: alphanumeric and no letter.
        comment_share: of the lines, those that begin with a comment; NOT_APPLICABLE where the language has none that
            we know. Text between the marks of a block comment counts where each line has its `*`.
        compression_ratio: bytes after LZ4 through bytes before, of the first 16 KiB; 1.0 for the empty text. Code of
            the sample has 0.25 to 0.8, one line again and again 0.01, base64 1.0.
        generated: one of the first 10 lines (8 KiB at most) says that a program wrote the file.
        xml_header: `<?xml` among the first 100 characters.
        html_text_share: characters outside tags, comments, scripts and styles; NOT_APPLICABLE but for HTML.
        blob_share: characters in runs of 60 and more of the base64 alphabet, which hexadecimal digits are part of.
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
