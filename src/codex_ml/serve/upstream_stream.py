"""A stream of another endpoint through the filter: text fields piece by piece, arguments of tools as a whole.

A chunk is written anew from the fields that are known here; what another field of it holds does not pass.

Used by: upstream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from codex_ml.policy.filters import MAX_CHARACTERS
from codex_ml.serve.api_answers import FILTERED
from codex_ml.serve.prompt_ends import PromptEnds
from codex_ml.serve.screening import Screening, TextGate, stricter
from codex_ml.serve.upstream_text import TEXTS, TextWalk

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")  # of the field usage
LONGEST_NAME = 256
NAMES = ("id", "object", "created", "model", "system_fingerprint")  # of a chunk
MOST_CHOICES = 128
BEFORE = 2000  # characters of earlier fields that a new one is read after; more than a filter reads
MOST_NUMBER = 1 << 53  # a number of the protocol; one of any length could spell a value
KINDS = {True: "chat.completion.chunk", False: "text_completion"}


@dataclass
class _Tool:
    """A call of a tool, kept until its arguments are complete."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def as_json(self, index: int) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": index, "id": self.id, "type": "function", "function": function}


@dataclass
class _StreamedAnswer:
    """One choice: a gate for each of its text fields, and its calls of tools."""

    before: str  # the end of what its next text field follows: of the prompt, and of the fields before that one
    gates: dict[str, TextGate] = field(default_factory=dict)
    tools: dict[int, _Tool] = field(default_factory=dict)
    kept: int = 0  # characters of the tools
    done: bool = False


class FilteredChunks:
    """Filters the chunks of one stream.

    Args:
        ends: what its answers follow.

    Attributes:
        decision: the strictest so far, None without a policy.
        ended: whether nothing more may leave, because the policy ended the last answer.
    """

    def __init__(self, screening: Screening, ends: PromptEnds, *, chat: bool) -> None:
        self._screening, self._ends, self._chat = screening, ends, chat
        self._answers: dict[int, _StreamedAnswer] = {}
        self._names: dict[str, Any] = {}
        self.decision: Decision | None = "allow" if screening.screen else None
        self.why = ""

    @property
    def complete(self) -> bool:
        """Whether each answer that was asked for has ended."""
        return sum(answer.done for answer in self._answers.values()) >= self._ends.answers

    @property
    def ended(self) -> bool:
        return self.complete and any(map(self._refused, self._answers.values()))

    def head(self) -> dict[str, Any]:
        """The names of the chunks so far, such as `id` and `model`, as they may leave."""
        return {name: self._short(value) for name, value in self._names.items()}

    def add(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk that may leave; None if nothing may.

        Raises:
            ValueError: for a chunk that is not one of OpenAI's format.
        """
        listed = chunk.get("choices", [])
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise ValueError("choices is not a list of objects")
        self._names |= {name: chunk[name] for name in NAMES if name in chunk}
        choices = [left for one in listed if (left := self._choice(one)) is not None]
        usage = chunk.get("usage")
        if not choices and not isinstance(usage, dict):
            return None
        head = self.head()
        if isinstance(usage, dict):
            head["usage"] = {key: usage[key] for key in COUNTS if _is_number(usage.get(key), MOST_NUMBER)}
        return {**head, "choices": choices}

    def finish(self) -> dict[str, Any] | None:
        """What is left of choices that did not end, at the end of a stream; None for nothing."""
        left = [self._choice({"index": index, "finish_reason": "length"}) for index in list(self._answers)]
        choices = [one for one in left if one is not None]
        return {"object": KINDS[self._chat], **self.head(), "choices": choices} if choices else None

    def _choice(self, given: dict[str, Any]) -> dict[str, Any] | None:
        index = given.get("index", 0)
        if not _is_number(index, MOST_CHOICES):
            raise ValueError("a choice has no index")
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _StreamedAnswer(self._ends.before(index))
        if answer.done:
            return None
        finish = given.get("finish_reason")
        delta = given.get("delta", {}) if self._chat else {"text": given.get("text", "")}
        if not isinstance(delta, dict):
            raise ValueError("delta is not an object")
        left: dict[str, Any] = {}
        if delta.get("role") == "assistant":
            left["role"] = "assistant"
        for name in TEXTS if self._chat else ("text",):
            if text := self._text(answer, name, delta.get(name), last=finish is not None):
                left[name] = text
        self._keep(answer, delta.get("tool_calls") or [])
        if finish is not None and answer.tools:
            left["tool_calls"] = self._tools(answer)
        refused = self.decision == "refuse" and self._refused(answer)
        if refused:
            left, finish = ({"refusal": self.why} if self._chat else {}), FILTERED
        answer.done = finish is not None
        if not left and finish is None:
            return None
        said = {"delta": left} if self._chat else {"text": left.get("text", "")}
        return {"index": index, **said, "finish_reason": None if finish is None else self._short(finish)}

    def _text(self, answer: _StreamedAnswer, name: str, text: Any, *, last: bool) -> str:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} is not a text")
        gate = answer.gates.get(name)
        if gate is None:
            if not text:
                return ""
            gate = answer.gates[name] = self._screening.gate(answer.before)
        answer.before = (answer.before + (text or ""))[-BEFORE:]
        left = gate.push(text or "")
        if last and gate.decision != "refuse":
            left += gate.finish()
        self._note(gate.decision, gate.why)
        return left

    def _keep(self, answer: _StreamedAnswer, calls: Any) -> None:
        if not isinstance(calls, list):
            raise ValueError("tool_calls is not a list")
        for call in calls:
            function = call.get("function") or {} if isinstance(call, dict) else None
            index = call.get("index", 0) if isinstance(call, dict) else None
            if not isinstance(function, dict) or not _is_number(index, MOST_CHOICES):
                raise ValueError("a call of a tool is not an object with an index")
            tool = answer.tools.setdefault(index, _Tool())
            tool.id += _string(call.get("id"))
            tool.name += _string(function.get("name"))
            tool.arguments += _string(function.get("arguments"))
            answer.kept += len(str(call))
        if answer.kept > MAX_CHARACTERS or len(answer.tools) > MOST_CHOICES:
            raise ValueError("the calls of tools are too long")

    def _tools(self, answer: _StreamedAnswer) -> list[dict[str, Any]]:
        calls = [tool.as_json(index) for index, tool in sorted(answer.tools.items())]
        if self._screening.screen is None:
            return calls
        walk = TextWalk(self._screening.screen.screen_output, self._screening.screen.values)
        cleaned: list[dict[str, Any]] = walk.cleaned(calls)
        self._note(*walk.decision)
        answer.gates["tool_calls"] = _Decided(*walk.decision)
        return cleaned

    def _refused(self, answer: _StreamedAnswer) -> bool:
        return any(gate.decision == "refuse" for gate in answer.gates.values())

    def _note(self, decision: Decision | None, why: str) -> None:
        self.decision, self.why = stricter((self.decision, self.why), (decision, why))

    def _short(self, value: Any) -> Any:
        """A name or number of the protocol, as the policy lets it pass; one that is too long becomes empty."""
        if isinstance(value, str) and len(value) > LONGEST_NAME:
            return ""
        if isinstance(value, str) and self._screening.screen is not None:
            return self._screening.screen.screen_output(value).text
        return value if isinstance(value, str) or _is_number(value, MOST_NUMBER) else None


@dataclass
class _Decided:
    """A gate that has decided already."""

    decision: Decision | None
    why: str

    def push(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


def _is_number(value: Any, most: int) -> TypeGuard[int]:
    """Whether it is one of 0, 1, ... below `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < most


def _string(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError("a field of a tool is not a text")
    return value or ""
