"""The texts after which another endpoint's answers are read: the prompts of a request, or its last message.

Used by: upstream, upstream_stream.
"""

from __future__ import annotations

from typing import Any


class PromptEnds:
    """What the answers of one request follow.

    Args:
        request: its JSON object, as the filter lets it pass. What is not in OpenAI's format counts as no text.

    Attributes:
        answers: how many answers it asks for.
    """

    def __init__(self, request: dict[str, Any], *, chat: bool) -> None:
        n = request.get("n")
        self._per_prompt = n if isinstance(n, int) and n > 0 else 1
        if chat:
            messages = request.get("messages")
            last = messages[-1] if isinstance(messages, list) and messages else None
            self._texts = [_text(last.get("content")) if isinstance(last, dict) else ""]
        else:
            prompt = request.get("prompt")
            self._texts = list(map(_text, prompt)) if isinstance(prompt, list) else [_text(prompt)]
        self.answers = self._per_prompt * len(self._texts)

    def before(self, index: int) -> str:
        """The text that an answer follows; that of the last prompt for an index beyond them."""
        return self._texts[min(index // self._per_prompt, len(self._texts) - 1)] if self._texts else ""


def _text(content: Any) -> str:
    """A text, or the texts of the parts of a message."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
