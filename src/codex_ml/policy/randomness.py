"""Whether a value is generated or consists of words: the checks for secrets that have no fixed shape.

Used by: validators.py, under the names that data/policy.yaml gives them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from operator import add

from codex_ml.policy.constants import COMMON_PAIRS, SHORT_WORDS

_NUMBERED = re.compile(r"[A-Za-z_.-]+\d{0,3}|[A-Za-z_-]+\d{4}")
_YEAR = re.compile(r"(?!(?:Pass|Test|User|Admin|Secret))[A-Z][a-z]{3,}[._-]?\d{4}")
_SIGN = re.compile(r"[!#$%&@^~]")  # signs that passwords have and names do not
_SIGN_INSIDE = re.compile(r"[A-Za-z][!#%&^~][A-Za-z]")
_DIGIT_INSIDE = re.compile(r"[A-Za-z]{2,}\d[A-Za-z]{2,}")
_LONG_WITH_DIGIT = re.compile(r"(?=.{13})[A-Za-z]?[a-z]+\d[a-z]+")  # names such as symbol2label are shorter
_CHOSEN = re.compile(f"{_DIGIT_INSIDE.pattern}|{_YEAR.pattern}")
_SIGNED = re.compile(r"[A-Za-z0-9][._/:-]+[A-Za-z0-9]")
_LETTERS = re.compile("[A-Za-z]{3,}")
_CAPITALS = re.compile("[A-Z]+")
_CAMEL = re.compile("[a-z][A-Z][a-z]")
_PART = re.compile("[A-Z]{0,5}[a-z]+|[A-Z]+")
LOOKED = 100  # characters that a check reads; more do not help, and a hostile line can hold very many values


def is_password(value: str) -> bool:
    """Whether a value after the name of a password may be one: it is generated, or a person chose it.

    A person mixes letters with two digits, with a digit and a sign, with a digit between letters, or with a sign that
    names do not have. One word followed by a number is not a password.

    >>> [is_password(value) for value in ("Tiger#1985", "hunter2hunter", "correct!horse", "version-2", "option7")]
    [True, True, True, False, False]
    """
    value = value[:LOOKED]
    if is_generated(value) or (len(value) >= 8 and _turns(value) >= 0.5 and not is_readable(value)):
        return True
    return _is_mixed(value) or bool(_SIGN_INSIDE.search(value)) or bool(_CHOSEN.fullmatch(value))


def is_secret(value: str) -> bool:
    """Whether a value after the name of a secret may be one: it is generated, or a person chose it.

    A person mixes letters with digits and a sign, or puts a digit inside a long word.

    >>> [is_secret(value) for value in ("Tiger#1985", "k7XbQ2mN9pLw", "hunter2hunter", "layer1.weight")]
    [True, True, True, False]
    """
    value = value[:LOOKED]
    if len(value) >= (12 if value.isalnum() else 16) and is_generated(value):
        return True
    if len(value) >= 16 and value.isalnum() and _is_mixed(value + ".") and _common_pairs(value)[0] < 0.7:
        return True
    mixed = _is_mixed(value) and bool(_SIGN.search(value)) and not is_readable(value)
    return mixed or bool(_LONG_WITH_DIGIT.fullmatch(value))


def _is_mixed(value: str) -> bool:
    """Whether a value mixes letters with two digits, or with a digit and a sign, and is no word with a number."""
    count = sum(map(str.isdigit, value))
    enough = count >= 2 or (count == 1 and not value.isalnum())
    return enough and any(map(str.isalpha, value)) and not _NUMBERED.fullmatch(value)


def is_readable(value: str) -> bool:
    """Whether a value is words and numbers with signs between them: a path, a file, an attribute, a model's name.

    It needs such a sign and six letter pairs. Letters and digits may alternate once per six characters if half of the
    letter pairs are common, and once per twelve if 35 % are. Of random URL-safe base64 texts of 32 characters, 3 in
    1,000 count as readable.
    """
    if not _SIGNED.search(value):
        return False
    share, pairs = _common_pairs(value)
    if pairs < 6 or share < 0.35 or _torn(value) > 1:
        return False
    turns = sum(a.isdigit() != b.isdigit() for a, b in pairwise(value) if a.isalnum() and b.isalnum())
    return (share >= 0.5 and turns * 6 <= len(value)) or (share >= 0.35 and turns * 12 <= len(value))


def _common_pairs(value: str) -> tuple[float, int]:
    """(share of common pairs among neighbouring letters, number of pairs); words have 0.8, random letters 0.25."""
    pairs = [pair.lower() for pair in map(add, value, value[1:]) if pair.isalpha()]
    return sum(map(COMMON_PAIRS.__contains__, pairs)) / max(1, len(pairs)), len(pairs)


def _torn(value: str) -> int:
    """Number of parts of one or two letters in words of mixed case, as in `xKqPt`; camelCase has hardly any.

    Two capitals at the end of a word do not count: they are an abbreviation.

    >>> _torn("getUserById"), _torn("aKqPtRw")
    (0, 4)
    """
    words = (_PART.findall(word) for word in _LETTERS.findall(value))
    return sum(
        len(part) < 3 and part not in SHORT_WORDS and not part[1:].isupper()
        for parts in words
        if len(parts) > 1
        for part in parts
    )


def _has_many_capitals(value: str) -> bool:
    """Whether about half of the letters of a value with a digit are capitals; in camelCase it is a quarter."""
    capitals, small = (sum(map(kind, value)) for kind in (str.isupper, str.islower))
    letters = capitals + small
    half = 0.42 * letters <= capitals <= 0.8 * letters
    return half and letters < len(value) >= 14 and value.isalnum() and len(_CAPITALS.findall(value)) > 3


def _turns(value: str) -> float:
    """Share of neighbours of different class (small letter, capital, digit).

    It is 0.62 in random base 62, 0.4 in camelCase and 0 in words.
    """
    pairs = [(a, b) for a, b in pairwise(value) if a.isalnum() and b.isalnum()]
    return sum((a.isdigit(), a.isupper()) != (b.isdigit(), b.isupper()) for a, b in pairs) / max(1, len(pairs))


def is_token(value: str) -> bool:
    """Whether a value is not words; for tokens whose prefix, such as `sk-`, also begins ordinary names."""
    return _turns(value[:LOOKED]) >= 0.12


def is_generated(value: str) -> bool:
    """Whether a value is generated rather than a name. Long camelCase names split into words (Yelp/detect-secrets#693).

    Of random base-62 texts it takes for a name: 2 % at 12 characters, 0.4 % at 20, 0.05 % at 32.
    """
    return _is_generated(value[:LOOKED])


@lru_cache(maxsize=8192)
def _is_generated(value: str) -> bool:
    if is_readable(value):
        return False
    share, pairs = _common_pairs(value)
    torn = _torn(value)
    few = 3 * sum(map(str.isupper, value)) <= sum(map(str.isalpha, value))
    camel = few and _CAMEL.search(value) and share >= 0.55 and pairs >= 8 and _turns(value) < 0.45 and torn < 3
    if camel:
        return False
    if torn > 1 or _has_many_capitals(value):
        return True
    if len(value) >= 10 and (_turns(value) >= 0.5 or (share < 0.4 and pairs >= 6)):
        return True
    parts = re.findall(r"[A-Z]{0,5}[a-z]+|[A-Z]+|\d+", value)
    numbers = [part for part in parts if part.isdigit()]
    letters = [part for part in parts if not part.isdigit() and part not in SHORT_WORDS]
    if not numbers:
        return not re.search(r"[._-]", value) and sum(len(part) < 3 for part in letters) >= 3
    shortest = 3 if sum(map(len, numbers)) > 1 else 2
    return bool(letters) and (len(numbers) > 2 or any(len(part) < shortest for part in letters))
