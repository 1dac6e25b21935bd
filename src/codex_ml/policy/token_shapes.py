"""Shapes of tokens: a small subset of regular expressions that describes a provider's format.

A shape consists of fixed characters and classes, such as `ghp_[A-Za-z0-9]{36}`. The literal that a scan searches, the
pattern and an invented value all follow from it, so a provider is one line of data/policy.yaml.
Used by: providers.py, planted.py.
"""

from __future__ import annotations

import itertools
import random
import re

_PIECE = re.compile(r"\[([^\]^][^\]]*)\](?:\{(\d+)(,?)\})?|\\([^A-Za-z0-9])|([^\[\]{}()|\\*+?.^$])")
_CLASS = re.compile(r"(.)-(.)|(.)")
MAX_PREFIXES = 12  # literals of one shape: a class near its start gives one literal per character


def pieces(shape: str) -> list[tuple[str, int, bool]]:
    """The pieces of a shape: (alphabet, count, whether more may follow). A fixed character is an alphabet of one.

    >>> pieces("k-[ab]{2,}")
    [('k', 1, False), ('-', 1, False), ('ab', 2, True)]

    Raises:
        ValueError: for anything but fixed characters, `[class]`, `[class]{n}`, and `[class]{n,}` at the end.
    """
    found, place = [], 0
    while place < len(shape):
        piece = _PIECE.match(shape, place)
        if not piece:
            raise ValueError(
                f"a shape holds characters, \\ before signs, [class] and [class]{{n}}; found {shape[place:]!r}"
            )
        body, count, more, sign, character = piece.groups()
        if body is None:
            found.append((sign or character, 1, False))
        else:
            found.append((_alphabet(body), int(count or 1), bool(more)))
        place = piece.end()
    if any(more for _, _, more in found[:-1]):
        raise ValueError("only the last class of a shape may be open, {n,}")
    return found


def _alphabet(body: str) -> str:
    """The characters of a class, each once."""
    characters = []
    for low, high, single in _CLASS.findall(body):
        if low > high:
            raise ValueError(f"the class [{body}] has a range whose end comes before its start")
        characters += [single] if single else [chr(code) for code in range(ord(low), ord(high) + 1)]
    return "".join(dict.fromkeys(characters))


def literals(shape: str) -> list[str]:
    """The prefixes that a value of the shape can have, up to the first class with a count or with many characters."""
    prefixes = [""]
    for alphabet, count, _ in pieces(shape):
        if count > 1 or len(prefixes) * len(alphabet) > MAX_PREFIXES:
            break
        prefixes = [head + tail for head, tail in itertools.product(prefixes, alphabet)]
    return prefixes


def pattern(shape: str) -> str:
    """The regular expression of the shortest value: `{n,}` becomes `{n}`, because a scan extends a longer value."""
    return re.sub(r"\{(\d+),\}\Z", r"{\1}", shape)


def instance(shape: str, rng: random.Random, *, times: int = 1) -> str:
    """An invented value, its last class `times` as long, without two full stops in a row: `...` marks a sample."""
    found = pieces(shape)
    parts = ["".join(rng.choices(alphabet, k=count)) for alphabet, count, _ in found]
    alphabet, count, _ = found[-1]
    value = "".join(parts) + "".join(rng.choices(alphabet, k=count * (times - 1)))
    return re.sub(r"(?<=\.)\.", "0", value)
