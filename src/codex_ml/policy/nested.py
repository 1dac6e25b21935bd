"""Clean a JSON value: its texts, its numbers and its keys, each text together with the name that it has there.

In `password = "..."` a rule sees name and value in one text. In a record they are apart: `{"password": ...}`, a pair
`["Authorization", ...]`, an entry `{"name": "DB_PASSWORD", "value": ...}`, an option `["--password", ...]`. Here a text
is scanned once alone and once as the same text after its name, so a rule finds it in all of these.
Used by: split, which cleans metadata, messages and tools; serve, which cleans what goes to another endpoint and back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from codex_ml.policy.finding import Finding, locate
from codex_ml.policy.scan import Scanner

NAMED_CHARACTERS = 1000  # limit for a text that is scanned with its name
NAME_CHARACTERS = 200  # of a name that rules see
SMALLEST = 100_000  # a number with fewer digits identifies nobody and is no password
# Keys of an entry that names something, the clearest first, and keys under which it has the value:
# `{"name": "password", "value": ...}`.
NAMING = (
    *("name", "key", "field", "header", "variable", "option", "param", "parameterkey"),
    *("attribute", "label", "id", "k"),
)
VALUES = ("value", "val", "v", "content", "data", "default", "text", "body", "stringvalue", "parametervalue")
NAMED = frozenset({*VALUES, "$", "#text", "_"})

Replace = Callable[[str, list[Finding]], str]


class NestedCleaner:
    """Cleans JSON values by the rules of a scanner.

    >>> from codex_ml.policy.redact import redact
    >>> from codex_ml.policy.rules import load_policy
    >>> cleaner = NestedCleaner(Scanner(load_policy()))
    >>> cleaner.clean({"port": 8080, "hosts": ["a", "b"]}, lambda text, found: redact(text, found, b"a key"))
    {'port': 8080, 'hosts': ['a', 'b']}
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._tells = lru_cache(maxsize=4096)(self._is_telling)

    def clean(self, value: Any, replaced: Replace, name: str = "") -> Any:
        """A copy of a JSON value without what the policy forbids. A number that it forbids becomes a text.

        Args:
            replaced: gets a text and its findings, in order, at least one; returns the text without the values.
            name: name that the value itself has; "" for none.
        """
        if isinstance(value, str):
            return self._text(value, replaced, name)
        if isinstance(value, dict):
            return self._entries(value, replaced, name)
        if isinstance(value, list):
            names = [name, *(item if self._is_name(item) else name for item in value[:-1])]
            return [self.clean(item, replaced, one) for item, one in zip(value, names, strict=False)]
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= SMALLEST:
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            text = json.dumps(whole)
            cleaned = self._text(text, replaced, name)
            return value if cleaned == text else cleaned
        return value

    def _entries(self, value: dict[str, Any], replaced: Replace, name: str) -> dict[str, Any]:
        beside = {key.lower(): item for key, item in value.items()}
        named = next((beside[key] for key in NAMING if self._is_name(beside.get(key))), name)
        cleaned = {}
        for key, item in value.items():
            own = key[-NAME_CHARACTERS:]
            inner = named if key.lower() in NAMED else own if self._tells(own) else ""
            cleaned[self._text(key, replaced)] = self.clean(item, replaced, inner)
        return cleaned

    def _text(self, text: str, replaced: Replace, name: str = "") -> str:
        found = self._scanner.scan(text)
        if name and len(text) <= NAMED_CHARACTERS:
            taken = [(f.start, f.end) for f in found]
            more = [f for f in self._after(name, text) if all(f.end <= start or end <= f.start for start, end in taken)]
            found = sorted([*found, *more], key=lambda finding: finding.start)
        return replaced(text, found) if found else text

    def _after(self, name: str, text: str) -> list[Finding]:
        """Findings in the first line of a text that stands after its name; places as in the text alone."""
        (head, tail), value = frame(name), text.strip()
        low, high = len(head), len(head) + len(value)
        shift = low - text.find(value)
        found = [f for f in self._scanner.scan(f"{head}{value}{tail}") if low <= f.start and f.end <= high]
        spans = ((f.start - shift, f.end - shift, f.rule, f.action, f.severity) for f in found if f.line == 1)
        return list(locate(text, spans))

    def _is_name(self, item: Any) -> bool:
        """Whether a text beside another one may be its name."""
        return isinstance(item, str) and len(item) <= NAME_CHARACTERS and self._tells(item)

    def _is_telling(self, name: str) -> bool:
        """Whether a rule may match after this name: a literal or gate of a rule is in it, as it stands in a text."""
        return next(self._scanner.matcher.begins(frame(name)[0]), None) is not None


def frame(name: str) -> tuple[str, str]:
    """What stands before and after a named text where both are in one text: `"name": "text"`, `--name text`."""
    return (f" {name} ", "") if name.startswith("-") else (json.dumps(name, ensure_ascii=False) + ': "', '"')
