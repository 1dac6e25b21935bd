"""Shapes of tokens: the small part of regular expressions that a provider's format needs.

A shape is fixed characters and classes, such as `ghp_[A-Za-z0-9]{36}`: the literal that a scan looks for, the pattern
and an invented value all follow from it, so a provider is one line of data/policy.yaml.
"""

from __future__ import annotations

import itertools
import random
import re

_PIECE = re.compile(r"\[([^\]^][^\]]*)\](?:\{(\d+)(,?)\})?|\\([^A-Za-z0-9])|([^\[\]{}()|\\*+?.^$])")
_CLASS = re.compile(r"(.)-(.)|(.)")
MAX_PREFIXES = 12  # literals of one shape: a class at its start stands for all of its characters


def pieces(shape: str) -> list[tuple[str, int, bool]]:
    """Alphabet, count and whether more may follow, of each piece; a fixed character is an alphabet of one.

    Raises:
        ValueError: for anything else than fixed characters, `[class]`, `[class]{n}`, and `[class]{n,}` at the end.
    """
    found, place = [], 0
    while place < len(shape):
        piece = _PIECE.match(shape, place)
        if not piece:
            raise ValueError(
                f"a shape has characters, \\ before signs, [class], and [class]{{n}}; not {shape[place:]!r}"
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
            raise ValueError(f"the class [{body}] has a range that ends before it begins")
        characters += [single] if single else [chr(code) for code in range(ord(low), ord(high) + 1)]
    return "".join(dict.fromkeys(characters))


def literals(shape: str) -> list[str]:
    """The texts a value of the shape can begin with, up to its first class that stands for many characters."""
    prefixes = [""]
    for alphabet, count, _ in pieces(shape):
        if count > 1 or len(prefixes) * len(alphabet) > MAX_PREFIXES:
            break
        prefixes = [head + tail for head, tail in itertools.product(prefixes, alphabet)]
    return prefixes


def pattern(shape: str) -> str:
    """The expression of the shortest value: `{n,}` is `{n}`, for a scan takes a longer value to its natural end."""
    return re.sub(r"\{(\d+),\}\Z", r"{\1}", shape)


def instance(shape: str, rng: random.Random, *, times: int = 1) -> str:
    """An invented value, its last class `times` as long; full stops do not touch, for `...` marks a sample."""
    found = pieces(shape)
    parts = ["".join(rng.choices(alphabet, k=count)) for alphabet, count, _ in found]
    alphabet, count, _ = found[-1]
    value = "".join(parts) + "".join(rng.choices(alphabet, k=count * (times - 1)))
    return re.sub(r"(?<=\.)\.", "0", value)
