"""Cut a text into words and signs, in any script and for code.

Used by: BLEU, ROUGE, F1, distinct-n and repetition rate.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CHARACTERS = 1 << 16  # of an output or reference that metrics read: the cost of a hostile output stays bounded
SIGNATURE = f"tokens:words+signs|case:mixed|first:{CHARACTERS}"

# Scripts that put no space between words: there each letter, with its marks, is a token. Thai, Lao, Myanmar, Khmer,
# Hiragana and Katakana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINERS = "\u200c\u200d"


@lru_cache(maxsize=4)  # of one pair, several metrics ask for the same two texts
def words(text: str) -> tuple[str, ...]:
    """Return the words and signs of the first CHARACTERS characters of a text; white space separates and is left out.

    A word is a run of letters, digits and underscores with their combining marks; in scripts that do not separate
    words by spaces, it is one letter with its marks. Every other visible character is a token of its own, so operators
    and brackets of code count.

    >>> words("a_1 += f(x)")
    ('a_1', '+', '=', 'f', '(', 'x', ')')
    """
    text = text[:CHARACTERS]
    if text.isascii():
        return tuple(re.findall(r"\w+|[^\w\s]", text))
    marks = _JOINERS + "".join(sorted(c for c in set(text) if unicodedata.category(c)[0] == "M"))
    pattern = rf"[{_UNSPACED}][{marks}]*|(?:[^\W{_UNSPACED}]|[{marks}])+|[^\w\s]"
    return tuple(re.findall(pattern, text))


def ngrams(tokens: tuple[str, ...], n: int) -> list[tuple[str, ...]]:
    """Return all runs of `n` tokens, in order."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))
