"""The texts in a request or an answer of another endpoint: every string and number of a JSON value passes the filter.

A string that holds JSON, such as the arguments of a tool, is also read as JSON: an escape could hide a value. The parts
of one message are read alone and joined, because a model reads them joined.

Used by: upstream, upstream_stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import safe_line
from codex_ml.core.strict_json import parse_json
from codex_ml.policy.filters import ScreenedText
from codex_ml.policy.finding import Finding
from codex_ml.policy.nested import NAMED_CHARACTERS, NestedCleaner, Replace, frame
from codex_ml.policy.scan import Scanner
from codex_ml.serve.api_errors import ApiError
from codex_ml.serve.screening import strictest

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision

Screen = Callable[[str], ScreenedText]
MOST_TEXTS = 20_000  # different texts, at 0.1 ms each; an answer with logprobs repeats its keys and tokens
# Of a message, or of a delta of a stream, in the order in which a model writes them.
TEXTS = ("reasoning", "reasoning_content", "content", "refusal")
PARTS = ("text", "input_text", "output_text", "refusal")  # kinds of a part of a message that the filter can read
UNREAD = ("prompt_token_ids", "prompt_embeds", "input_ids")  # prompts of other servers than OpenAI's
SHORT = 64  # characters of a text that is remembered as allowed


class TooManyTexts(Exception):
    """A value holds more texts than one request may cost."""


class TextWalk(NestedCleaner):
    """Screens all strings, keys and long numbers of a value, with their names, and remembers the decisions.

    Args:
        values: rules by which a name is recognised as one that may make its value a secret.
    """

    def __init__(self, screen: Screen, values: Scanner) -> None:
        super().__init__(values)
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
        """The value as it may be passed on. A number that may not be passed on becomes a text.

        Raises:
            TooManyTexts: for more than `MOST_TEXTS`, of which equal short ones that are allowed count once.
        """
        return self.clean(value, _unused)

    def _entries(self, value: dict[str, Any], replaced: Replace, name: str) -> dict[str, Any]:
        cleaned = super()._entries(value, replaced, name)
        lists = {key: one for key, one in cleaned.items() if key in TEXTS and isinstance(one, list)}
        return cleaned | {key: joined_parts(parts, self._alone) for key, parts in lists.items()}

    def _text(self, text: str, replaced: Replace, name: str = "") -> str:
        left = self._alone(text)
        if not name or not 0 < len(left) <= NAMED_CHARACTERS:
            return left
        head, tail = frame(name)
        both = self._screened_text(f"{head}{left}{tail}")
        inside = both.startswith(head) and both.endswith(tail) and len(both) >= len(head) + len(tail)
        return both[len(head) : len(both) - len(tail)] if inside else both

    def _alone(self, text: str) -> str:
        left = self._screened_text(text)
        return self._json(left) if left[:1] in ("{", "[") and "\\" in left else left

    def _screened_text(self, text: str) -> str:
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
        return found.text

    def _json(self, text: str) -> str:
        """A string that may hold JSON; it stays as it is unless a string inside is not allowed."""
        try:
            inner = parse_json(text)
        except ValueError:
            return text
        before = len(self._screened)
        cleaned = self.cleaned(inner)
        return text if len(self._screened) == before else json.dumps(cleaned, ensure_ascii=False)


def _unused(text: str, found: list[Finding]) -> str:
    """The decisions of the filter take the place of this function."""
    raise NotImplementedError


def part_text(part: Any) -> str | None:
    """The text of one part of a message; None for a part without one, such as an image."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def with_text(part: Any, text: str) -> Any:
    """A part that has a text, with another one."""
    return {**part, "text": text} if isinstance(part, dict) else text


def joined_parts(parts: list[Any], screen: Callable[[str], str]) -> list[Any]:
    """The parts of one message as they may be passed on.

    They stay as they are if `screen` leaves their joined text as it is. Otherwise the first text part holds what is
    left of all, and the others are dropped: a value can begin in one and end in another.

    >>> joined_parts(["use tok-", {"type": "image"}, "abcd"], lambda text: text.replace("tok-abcd", "<SECRET>"))
    ['use <SECRET>', {'type': 'image'}]
    """
    texts = [text for part in parts if (text := part_text(part)) is not None]
    whole = "".join(texts)
    if len(texts) < 2 or (left := screen(whole)) == whole:
        return parts
    first = next(place for place, part in enumerate(parts) if part_text(part) is not None)
    others = [part for part in parts[first + 1 :] if part_text(part) is None]
    return [*parts[:first], with_text(parts[first], left), *others]


def refuse_unread(request: dict[str, Any]) -> None:
    """Refuse a prompt in a form that the filter cannot read.

    Raises:
        ApiError: 400.
    """
    prompt = request.get("prompt")
    texts = prompt if isinstance(prompt, list) else [prompt]
    if prompt is not None and not all(isinstance(text, str) for text in texts):
        message = "prompt must be a text or a list of texts: the filter cannot read token ids"
        raise ApiError(400, message, "prompt", "unsupported")
    for name in UNREAD:
        if request.get(name) is not None:
            raise ApiError(400, f"{name} is a prompt that the filter cannot read; send it as text", name, "unsupported")
    if (kinds := request.get("modalities")) not in (None, ["text"]):
        message = f"modalities {_named(kinds)}: the filter cannot read such an answer; ask for text"
        raise ApiError(400, message, "modalities", "unsupported")
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if unread := _unread(part):
                raise ApiError(400, f"messages: the filter cannot read {unread}; send text", "messages", "unsupported")


def _unread(part: Any) -> str:
    """What of a part of a message the filter cannot read, such as an image; "" for a text."""
    if not isinstance(part, dict):
        return ""
    kind = part.get("type")
    if kind not in (None, *PARTS):
        return f"a part of type {_named(kind)}"
    return "" if any(isinstance(part.get(name), str) for name in ("text", "refusal")) else "a part without a text"


def _named(value: Any) -> str:
    return safe_line(json.dumps(value))[:60]
