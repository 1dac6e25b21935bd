"""Definition of a word for the comparison of texts, in scripts with and without spaces between words.

A word is a run of letters, digits and underscores (`\\w`). Chinese, Japanese and the scripts of South-East Asia put no
spaces between words, so there each letter with its marks is a word. Five such words are five characters of Chinese, or
about two words of Thai. Used by: duplicates.shingles, split.decontaminate.

The table is frozen and independent of the Unicode version of Python: documents that are added later must still find
their near-duplicates.
"""

from __future__ import annotations

import re

# Per script: letters and digits, then the marks that follow them. Tibetan is missing on purpose: a tsheg, which is not
# a letter, separates its syllables. Korean has spaces.
_UNSPACED = {
    "Han": (
        "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufa6d\ufa70-\ufad9\U00020000-\U0003ffff",
        "",
    ),
    "kana": (
        "\u3031-\u3035\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
        "\U0001aff0-\U0001aff3\U0001aff5-\U0001affb\U0001affd-\U0001affe\U0001b000-\U0001b122\U0001b132"
        "\U0001b150-\U0001b152\U0001b155\U0001b164-\U0001b167",
        "\u302a-\u302f\u3099-\u309a",
    ),
    "Bopomofo": ("\u3105-\u312f\u31a0-\u31bf", ""),
    "Yi": ("\ua000-\ua48c", ""),
    "Thai": ("\u0e01-\u0e30\u0e32-\u0e33\u0e40-\u0e46\u0e50-\u0e59", "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"),
    "Lao": (
        "\u0e81-\u0e82\u0e84\u0e86-\u0e8a\u0e8c-\u0ea3\u0ea5\u0ea7-\u0eb0\u0eb2-\u0eb3\u0ebd\u0ec0-\u0ec4\u0ec6\u0ed0-\u0ed9\u0edc-\u0edf",
        "\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece",
    ),
    "Myanmar": (
        "\u1000-\u102a\u103f-\u1049\u1050-\u1055\u105a-\u105d\u1061\u1065-\u1066\u106e-\u1070\u1075-\u1081\u108e"
        "\u1090-\u1099\ua9e0-\ua9e4\ua9e6-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e-\uaa7f",
        "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f"
        "\u109a-\u109d\ua9e5\uaa7b-\uaa7d",
    ),
    "Khmer": ("\u1780-\u17b3\u17d7\u17dc\u17e0-\u17e9\u17f0-\u17f9", "\u17b4-\u17d3\u17dd"),
    "Tai Le and New Tai Lue": ("\u1950-\u196d\u1970-\u1974\u1980-\u19ab\u19b0-\u19c9\u19d0-\u19da", ""),
    "Tai Tham": ("\u1a20-\u1a54\u1a80-\u1a89\u1a90-\u1a99\u1aa7", "\u1a55-\u1a5e\u1a60-\u1a7c\u1a7f"),
    "Tai Viet": (
        "\uaa80-\uaaaf\uaab1\uaab5-\uaab6\uaab9-\uaabd\uaac0\uaac2\uaadb-\uaadd",
        "\uaab0\uaab2-\uaab4\uaab7-\uaab8\uaabe-\uaabf\uaac1",
    ),
    "Balinese": ("\u1b05-\u1b33\u1b45-\u1b4c\u1b50-\u1b59", "\u1b00-\u1b04\u1b34-\u1b44\u1b6b-\u1b73"),
    "Javanese": ("\ua984-\ua9b2\ua9cf-\ua9d9", "\ua980-\ua983\ua9b3-\ua9c0"),
}
LETTERS = "".join(letters for letters, _ in _UNSPACED.values())
MARKS = "".join(marks for _, marks in _UNSPACED.values())

_UNSPACED_LETTER = re.compile(f"([{LETTERS}][{MARKS}]*)")
_BLANK = re.compile(rf"[^\w\x00-\x7f{LETTERS}{MARKS}]")
_WORD = re.compile(rf"[{LETTERS}][{MARKS}]*|(?:(?![{LETTERS}])[\w{MARKS}])+")


def cut(text: str) -> str:
    """`text` with spaces around each letter of a script without spaces; other non-ASCII signs become spaces.

    In the UTF-8 form of the result, a word is a run of ASCII letters, digits, underscores and bytes above 127.
    """
    if text.isascii():
        return text
    return _BLANK.sub(" ", " ".join(_UNSPACED_LETTER.split(text)))


def spans(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of the words of `text`, in characters and in order. The same words as in `cut(text)`."""
    return [match.span() for match in _WORD.finditer(text)]


def unspaced_letters(text: str) -> int:
    """Number of words of `text` that are single letters of a script without spaces."""
    return 0 if text.isascii() else sum(1 for _ in _UNSPACED_LETTER.finditer(text))
