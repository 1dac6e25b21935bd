"""Render a chat template as transformers does. Templates are programs, so foreign ones run in a limited child process.

Used by: tokens.rendering.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

RENDERED_CHARACTERS = 16 << 20


class FixedDay(datetime):
    """A fixed date for templates that write the current date, so that every day gives the same bytes."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedDay:
        return cls(2025, 1, 1, tzinfo=tz)


def renderer() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Make transformers use a fixed date in this process, and return `render`. Called in a `LimitedChild`."""
    from transformers.utils import chat_template_utils

    vars(chat_template_utils)["datetime"] = FixedDay  # its strftime_now calls this class
    return render


def render(request: dict[str, Any]) -> dict[str, Any]:
    """Render a chat template once per prefix, in transformers' sandbox.

    Args:
        request: template; messages; tools or None; variables, such as bos_token; prefixes: pairs of (number of
            messages, whether the generation prompt follows); generation: whether the template has the tag of this name.

    Returns:
        texts: one per prefix. generation: spans [begin, end), in characters of the first text, that the tag encloses.

    Raises:
        ValueError: when the tag is inside a macro or a set block, or the texts exceed `RENDERED_CHARACTERS`.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    write: Any = render_jinja_template
    texts: list[str] = []
    spans: list[Any] = []
    for count, prompt in request["prefixes"]:
        random.seed(0)  # Jinja's `random` filter and lipsum use this RNG
        marked = _recorded(request["template"]) if request["generation"] else []
        [text], generation = write(
            [request["messages"][:count]],
            tools=request["tools"],
            chat_template=request["template"],
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=request["generation"],
            **request["variables"],
        )
        found = [span for of_chat in generation for span in of_chat]
        if [text[begin:end] for begin, end in found] != marked:
            raise ValueError("{% generation %} is inside a macro or a set block, so its offset is unknown")
        spans = spans if texts else found
        texts.append(text)
        if sum(map(len, texts)) > RENDERED_CHARACTERS:
            raise ValueError(f"the template writes more than {RENDERED_CHARACTERS} characters")
    return {"texts": texts, "generation": spans}


def _recorded(template: str) -> list[str]:
    """A list that the next rendering of the template fills with the texts that `{% generation %}` encloses.

    transformers counts the offsets of these texts from the start of the current block. Inside a macro that is not the
    start of the whole text, so the caller compares the offsets with these texts.
    """
    import jinja2
    from transformers.utils import chat_template_utils

    environment: Any = vars(chat_template_utils)["_compile_jinja_template"](template).environment
    tracker = next(one for one in environment.extensions.values() if hasattr(one, "_generation_support"))
    said: list[str] = []

    @jinja2.pass_eval_context
    def record(context: Any, caller: Any) -> str:
        text: str = type(tracker)._generation_support(tracker, context, caller)
        said.append(text)
        return text

    tracker._generation_support = record
    return said
