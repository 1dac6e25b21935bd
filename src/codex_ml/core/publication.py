"""The gate for what is published: each text of a JSON file or a table, keys included, passes the policy.

A stage that may write what the policy has not seen (text of a model, names in benchmarks) opens the gate once. So a new
field is cleaned without a line of code of its own.
Used by: core.io, core.csv_file and evaluate, which write through it; evaluate and safety_audit, which open it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

Clean = Callable[[str], str]
DIGEST = re.compile("[0-9a-f]{32}(?:[0-9a-f]{8}|[0-9a-f]{32})?")  # MD5, SHA-1, SHA-256: files are joined by them
SHORT, KEPT = 200, 1 << 14  # characters of a text whose result is kept, and how many are: most are names
_gates: list[Clean] = []


@contextmanager
def publishing(clean: Clean) -> Iterator[None]:
    """In this block, `published` cleans texts with `clean`, and so does every writer of JSON in core.io."""
    short = lru_cache(maxsize=KEPT)(clean)
    _gates.append(lambda text: short(text) if len(text) <= SHORT else clean(text))
    try:
        yield
    finally:
        _gates.pop()


def published(value: Any) -> Any:
    """A JSON value as it may be published: outside of a gate the value itself.

    >>> with publishing(lambda text: text.replace("hunter2", "<SECRET>")):
    ...     published({"hunter2": ["a hunter2", 7]})
    {'<SECRET>': ['a <SECRET>', 7]}
    """
    return _through(value, _gates[-1]) if _gates else value


def _through(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return value if DIGEST.fullmatch(value) else clean(value)
    if isinstance(value, dict):
        return {_through(key, clean): _through(inner, clean) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_through(inner, clean) for inner in value]
    return value
