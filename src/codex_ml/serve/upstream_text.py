"""The texts in a request or an answer of another endpoint: every string of a JSON value passes the filter.

A string that holds JSON, such as the arguments of a tool, is also read as JSON: an escape could hide a value.

Used by: upstream, upstream_stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from codex_ml.core.strict_json import parse_json
from codex_ml.policy.filters import ScreenedText
from codex_ml.serve.screening import strictest

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision

Screen = Callable[[str], ScreenedText]
MOST_TEXTS = 20_000  # different texts, at 0.1 ms each; an answer with logprobs repeats its keys and tokens
SHORT = 64  # characters of a text that is remembered as allowed


class TooManyTexts(Exception):
    """A value holds more texts than one request may cost."""


class TextWalk:
    """Screens all strings of a value and remembers the decisions."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._screened: list[ScreenedText] = []
        self._allowed = set[str]()
        self._count = 0

    @property
    def decision(self) -> tuple[Decision, str]:
        """The strictest decision so far, and its reason."""
        return strictest(self._screened)

    def note(self, screened: ScreenedText) -> None:
        """Count a further decision."""
        self._screened.append(screened)

    def cleaned(self, value: Any) -> Any:
        """The value with every string, and every key, as it may be passed on.

        Raises:
            TooManyTexts: for more than `MOST_TEXTS`, of which equal short ones that are allowed count once.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.cleaned(one) for one in value]
        if isinstance(value, dict):
            return {self._text(key): self.cleaned(one) for key, one in value.items()}
        return value

    def _text(self, text: str) -> str:
        if text in self._allowed:
            return text
        self._count += 1
        if self._count > MOST_TEXTS:
            raise TooManyTexts
        found = self._screen(text)
        if found.decision != "allow":
            self._screened.append(found)
        elif len(text) <= SHORT and text[:1] not in ("{", "["):
            self._allowed.add(text)
        left = found.text
        return self._json(left) if left[:1] in ("{", "[") and "\\" in left else left

    def _json(self, text: str) -> str:
        """A string that may hold JSON; it stays as it is unless a string inside is not allowed."""
        try:
            inner = parse_json(text)
        except ValueError:
            return text
        before = len(self._screened)
        cleaned = self.cleaned(inner)
        return text if len(self._screened) == before else json.dumps(cleaned, ensure_ascii=False)
