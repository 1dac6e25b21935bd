"""Copies of a chat record with marks around its texts. Each content, call and function name must be in the rendering.

Used by: tokens.rendering.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MARKS = "\U000f0000\U000f0001"  # private use: <open>number<open>text<close>
MARK = re.compile(f"{MARKS[0]}[0-9]*{MARKS[0]}|{MARKS[1]}")
MARKED = re.compile(f"{MARKS[0]}([0-9]*){MARKS[0]}([^{MARKS}]*){MARKS[1]}")
# Templates use all three names; the first one that is present counts.
REASONING = ("reasoning_content", "thinking", "reasoning")


class Said:
    """Copies of messages and tools with marks, and the list of their texts.

    A text with a number in its mark must be in the rendering. A special token that is spelt elsewhere (in a role, a
    key, a description) is marked without a number: the template may leave it out, but it is never control.

    Attributes:
        texts: (description for messages, text), indexed by number.
    """

    def __init__(self, control: re.Pattern[str]) -> None:
        self.control = control
        self.texts: list[tuple[str, str]] = []

    def messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Marked copies of the messages.

        Raises:
            ValueError: for a message without content, or with content that is not text.
        """
        return [self._message(message, f"message {i} ({message.get('role')})") for i, message in enumerate(messages, 1)]

    def tools(self, tools: Sequence[Any] | None) -> list[Any] | None:
        """Marked copies of the functions that may be called. The rendering must hold their names."""
        return None if tools is None else [self._function(tool, f"tool {i}") for i, tool in enumerate(tools, 1)]

    def _message(self, message: dict[str, Any], where: str) -> dict[str, Any]:
        calls = message.get("tool_calls") or message.get("function_call")
        if not isinstance(message.get("tool_calls", []), list):
            raise ValueError(f"{where} has tool_calls that are not a list")
        reasoning = next((key for key in REASONING if isinstance(message.get(key), str)), None)
        if message.get("content") in (None, []) and not calls and not reasoning:
            raise ValueError(f"{where} has no content; null is allowed only with tool_calls")
        marked = {}
        for key, value in message.items():
            if key == "content":
                marked[key] = self._content(value, where)
            elif key == "tool_calls":
                marked[key] = [self._function(call, f"a tool call of {where}") for call in value]
            elif key == "function_call":  # OpenAI's older form of tool_calls
                marked[key] = self._function(value, f"the function call of {where}")
            elif key == reasoning:
                marked[key] = self._say(value, f"the reasoning of {where}")
            else:
                marked[self._other(key)] = self._other(value)
        return marked

    def _content(self, content: Any, where: str) -> Any:
        if isinstance(content, str):
            return self._say(content, where)
        parts = []
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise ValueError(f"{where} holds a part of type {str(kind)[:40]!r}; only parts of type text are read")
            parts.append({**self._other(part), "text": self._say(text, where)})
        return parts

    def _function(self, value: Any, where: str) -> Any:
        """A tool or a call: {"function": {"name": ...}} or {"name": ...}."""
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not a JSON object")
        if isinstance(inner := value.get("function"), dict):
            others = {key: item for key, item in value.items() if key != "function"}
            return {**self._other(others), "function": self._named(inner, where)}
        return self._named(value, where)

    def _named(self, function: dict[str, Any], where: str) -> dict[str, Any]:
        marked = {}
        for key, value in function.items():
            if key == "name" and isinstance(value, str):
                marked[key] = self._say(value, f"the name of {where}")
            elif key == "arguments":
                marked[key] = self._leaves(value, f"the arguments of {where}")
            else:
                marked[self._other(key)] = self._other(value)
        return marked

    def _leaves(self, value: Any, where: str) -> Any:
        """Mark texts and argument names. A number cannot have marks; the name of its argument proves its presence."""
        if isinstance(value, str):
            return self._say(value, where)
        if isinstance(value, dict):
            return {self._say(key, where): self._leaves(item, where) for key, item in value.items()}
        return [self._leaves(item, where) for item in value] if isinstance(value, list) else value

    def _say(self, text: str, where: str) -> str:
        if not text:
            return text
        self.texts.append((where, text))
        return f"{MARKS[0]}{len(self.texts) - 1}{MARKS[0]}{text}{MARKS[1]}"

    def _other(self, value: Any) -> Any:
        """A copy with marks, without a number, around each special token that a text or a key spells."""
        if isinstance(value, str):
            return self.control.sub(lambda match: f"{MARKS[0]}{MARKS[0]}{match.group()}{MARKS[1]}", value)
        if isinstance(value, dict):
            return {self._other(key): self._other(item) for key, item in value.items()}
        return [self._other(item) for item in value] if isinstance(value, list | tuple) else value


def refuse_marks(*values: Any) -> None:
    """Refuse a record that holds one of the two private-use characters of the marks.

    Raises:
        ValueError: names both characters.
    """
    for value in values:
        if isinstance(value, str):
            if any(mark in value for mark in MARKS):
                raise ValueError("a chat message holds U+F0000 or U+F0001; these private-use characters are reserved")
        elif isinstance(value, dict):
            refuse_marks(*value.keys(), *value.values())
        elif isinstance(value, list | tuple):
            refuse_marks(*value)
