"""Whether a value is generated, or words: the checks of secrets that have no shape of their own.

Used by: validators.py, under the names that data/policy.yaml gives them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from codex_ml.policy.constants import COMMON_PAIRS, SHORT_WORDS

LOOKED = 100  # characters; more tell nothing new, and in a hostile line a value begins every few characters


def is_password(value: str) -> bool:
    """A generated value, or letters with two digits or with a digit and another sign; not one word and a number."""
    value = value[:LOOKED]
    count = sum(c.isdigit() for c in value)
    others = sum(not c.isalnum() for c in value)
    if is_generated(value) or (len(value) >= 8 and _turns(value) >= 0.5 and not is_readable(value)):
        return True
    return (
        (count >= 2 or (count == 1 and others >= 1))
        and any(c.isalpha() for c in value)
        and not re.fullmatch(r"[A-Za-z_.-]+\d{0,4}", value)
    )


def is_readable(value: str) -> bool:
    """Words and numbers with signs between them: a model's name, a path, a file, an attribute.

    Half of the pairs of letters are common ones, and letters and digits take turns at most once in six characters; or a
    third and once in twelve. Of random URL-safe base-64 texts of 32 characters 3 in 1,000 are so.
    """
    share, pairs = _common_pairs(value)
    turns = sum(a.isdigit() != b.isdigit() for a, b in pairwise(value) if a.isalnum() and b.isalnum())
    if pairs < 6 or not re.search(r"[A-Za-z0-9][._/:-]+[A-Za-z0-9]", value):
        return False
    return (share >= 0.5 and turns * 6 <= len(value)) or (share >= 0.35 and turns * 12 <= len(value))


def _common_pairs(value: str) -> tuple[float, int]:
    """Share of common pairs among neighbouring letters (0.8 in words, 0.25 in random text), and the number of pairs."""
    pairs = [value[i : i + 2].lower() for i in range(len(value) - 1) if value[i : i + 2].isalpha()]
    return sum(pair in COMMON_PAIRS for pair in pairs) / max(1, len(pairs)), len(pairs)


def _turns(value: str) -> float:
    """How often small letters, capitals and digits take turns: 0.62 in random base 62, 0.4 in camelCase, 0 in words."""
    pairs = [(a, b) for a, b in pairwise(value) if a.isalnum() and b.isalnum()]
    return sum((a.isdigit(), a.isupper()) != (b.isdigit(), b.isupper()) for a, b in pairs) / max(1, len(pairs))


def is_token(value: str) -> bool:
    """Not words: for tokens whose beginning, such as `sk-`, is that of names as well."""
    return _turns(value[:LOOKED]) >= 0.12


def is_generated(value: str) -> bool:
    """A generated value rather than a name: long camelCase names fall into words (Yelp/detect-secrets#693).

    Of random base-62 texts 2 % of 12 characters are taken for names, 0.4 % of 20, and 0.05 % of 32.
    """
    return _is_generated(value[:LOOKED])


@lru_cache(maxsize=1024)
def _is_generated(value: str) -> bool:
    if is_readable(value):
        return False
    share, pairs = _common_pairs(value)
    if len(value) >= 10 and (_turns(value) >= 0.5 or (share < 0.4 and pairs >= 6)):
        return True
    parts = re.findall(r"[A-Z]{0,5}[a-z]+|[A-Z]+|\d+", value)
    numbers = [part for part in parts if part.isdigit()]
    letters = [part for part in parts if not part.isdigit() and part not in SHORT_WORDS]
    if not numbers:
        return not re.search(r"[._-]", value) and sum(len(part) < 3 for part in letters) >= 3
    shortest = 3 if sum(map(len, numbers)) > 1 else 2
    return bool(letters) and (len(numbers) > 2 or any(len(part) < shortest for part in letters))
