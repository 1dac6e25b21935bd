"""Chat messages to text: render the tokenizer's own template in a sandbox, and prove that it wrote each message.

The template is rendered as transformers renders it, and once more with marks around every text of the record. If both
renderings are equal apart from the marks, the marks show the span of each text. This proves that no text was trimmed
or left out. A special token that is spelt inside such a span is data.

Used by: tokens.chat.
"""

from __future__ import annotations

import atexit
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from codex_ml.core.child import AnswerError, LimitedChild
from codex_ml.core.errors import UserError, one_line
from codex_ml.tokens.content_marks import MARK, MARKED, MARKS, Said, refuse_marks
from codex_ml.tokens.layout import CHATML
from codex_ml.tokens.templates import render, renderer
from codex_ml.tokens.text_tokenizer import TextTokenizer

TEMPLATE_BYTES = 64 << 10
SURROGATE = re.compile("[\ud800-\udfff]")
GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")
Span = tuple[int, int]  # characters, half-open
Tools = Sequence[Any] | None


class ChatRefused(UserError):
    """The template cannot be used for this record. It may work for other records."""


class UnstableTemplate(ChatRefused):
    """The template does not show which part of the text is an answer."""


@dataclass(frozen=True)
class Rendering:
    """A conversation as text.

    Attributes:
        text: what transformers renders.
        data: spans of the record's texts in `text`, in order.
        answers: one span per assistant message, from the end of the generation prompt to the end of the message.
        generation: spans between `{% generation %}` and `{% endgeneration %}`; None if the template has none.
    """

    text: str
    data: list[Span]
    answers: list[Span]
    generation: list[Span] | None


def render_chat(
    tokenizer: TextTokenizer,
    messages: Sequence[dict[str, Any]],
    tools: Tools,
    control: re.Pattern[str],
    *,
    prompt: bool,
    answers: bool = True,
) -> Rendering:
    """Render one conversation.

    Args:
        control: pattern that matches the special tokens.
        prompt: whether the generation prompt follows the messages.
        answers: False leaves `Rendering.answers` empty and renders the whole conversation only.

    Raises:
        ChatRefused: when the template fails, or leaves out or changes a text of the record.
        UserError: when there is no template, or the template exceeds its limits (64 KiB of source, 2 s of processor
            time, 1 GiB of memory).
    """
    template = checked_template(tokenizer, tools)
    # transformers leaves out keys that are null, so that templates need not know them
    given = [{key: value for key, value in message.items() if value is not None} for message in messages]
    said = Said(control)
    try:
        refuse_marks(messages, tools)
        marked_messages, marked_tools = said.messages(given), said.tools(tools)
    except ValueError as error:
        raise ChatRefused(f"the chat template cannot be rendered: {error}") from None
    trained = [_weight(message) for message in given]
    turns = [i for i, message in enumerate(given) if answers and message.get("role") == "assistant" and trained[i]]
    names = _names(tokenizer)
    prefixes = [(len(given), prompt), *((i + last, not last) for i in turns for last in (0, 1))]
    request = {"template": template, "variables": names, "generation": bool(GENERATION.search(template))}
    found = _ask({**request, "messages": given, "tools": tools, "prefixes": prefixes})
    once = _ask({**request, "messages": marked_messages, "tools": marked_tools, "prefixes": prefixes[:1]})
    (whole, *parts), [marked] = found["texts"], once["texts"]
    if surrogate := SURROGATE.search(whole):
        raise ChatRefused(f"the chat template writes a lone surrogate (U+{ord(surrogate[0]):04X}), which is not text")
    data = _data_spans(whole, marked, said, control)
    generation = [(int(a), min(int(b), len(whole))) for a, b in found["generation"]] if request["generation"] else None
    if answers and generation is not None and not all(trained):
        raise ChatRefused("a message has weight 0, but the template itself marks what is trained ({% generation %})")
    return Rendering(whole, data, _answer_spans(whole, parts, names["eos_token"]), generation)


def _weight(message: dict[str, Any]) -> bool:
    """Whether an answer is trained: its `weight`, 0 or 1 in OpenAI's format for fine-tuning; 1 when absent."""
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise ChatRefused("the weight of a message must be 0 (read, not trained) or 1")
    return bool(weight)


def checked_template(tokenizer: TextTokenizer, tools: Tools) -> str:
    """The chat template for a record, chosen as transformers chooses it: `tool_use` if the record has tools.

    Raises:
        UserError: when there is none, or it is larger than 64 KiB.
    """
    named = tokenizer.named_templates
    template = named["tool_use"] if tools is not None and "tool_use" in named else tokenizer.chat_template
    if template is None and named:
        raise UserError(
            f"the tokenizer has the chat templates {', '.join(sorted(named))}, but none named default for this record; "
            "name one of them default in tokenizer.path, or give records that have tools"
        )
    if template is None:
        raise UserError(
            "the tokenizer has no chat template, and these records are chat messages; set tokenizer.chat_template: "
            "chatml, or give records of text"
        )
    if len(template.encode("utf-8")) > TEMPLATE_BYTES:
        raise UserError(f"the chat template is larger than the limit of {TEMPLATE_BYTES} bytes; use another template")
    return template


@lru_cache(maxsize=1)
def _child() -> LimitedChild:
    child = LimitedChild(renderer)
    atexit.register(child.close)
    return child


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return render(request) if request["template"] == CHATML else dict(_child().ask(request))
    except AnswerError as error:
        raise ChatRefused(f"the chat template cannot be rendered: {error}") from None
    except UserError as error:
        raise UserError(f"the chat template cannot be rendered: {error}") from None
    except Exception as error:  # our own template met a message that it cannot write
        raise ChatRefused(f"the chat template cannot be rendered: {type(error).__name__}: {one_line(error)}") from None


def _names(tokenizer: TextTokenizer) -> dict[str, str]:
    by_id = {number: text for text, number in tokenizer.special.items()}
    roles = {"bos": tokenizer.bos, "eos": tokenizer.end, "pad": tokenizer.pad, "unk": tokenizer.unk}
    return {f"{role}_token": by_id[number] for role, number in roles.items() if number in by_id}


def _data_spans(whole: str, marked: str, said: Said, control: re.Pattern[str]) -> list[Span]:
    """Spans of the record's texts in `whole`; [] if the marks change what the template writes, but every text is there.

    Raises:
        ChatRefused: when a text of the record is missing or changed; the message names it.
    """
    found: dict[int, list[str]] = {}
    spans: list[Span] = []
    shift = 0  # characters of marks so far
    for match in MARKED.finditer(marked):
        opened = len(match[1]) + 2
        spans.append((match.start() - shift, match.end() - shift - opened - 1))
        shift += opened + 1
        if match[1]:
            found.setdefault(int(match[1]), []).append(match[2])
    if ascii(MARKS[0])[1:-1] in marked:  # repr writes the marks as escapes
        raise ChatRefused("the chat template writes Python objects, such as a list of parts, not their text")
    exact = MARK.sub("", marked) == whole and marked.count(MARKS[1]) == len(spans) == marked.count(MARKS[0]) / 2
    for number, (where, text) in enumerate(said.texts):
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]  # what the filter tojson writes
        if not (
            any(part in (text, escaped) for part in found.get(number, []))
            if exact
            else text.strip() and (text in whole or escaped in whole)
        ):
            advice = "use another template, or leave the record out"
            if text != text.strip():
                advice = f"remove the white space at its ends, {advice}"
            raise ChatRefused(
                f"the chat template leaves out or changes {where}, so the model would learn a text that is not in the "
                f"record; {advice}"
            )
    if not exact and any(control.search(text) for _, text in said.texts):
        raise ChatRefused(
            "a message spells a special token, and the chat template changes how messages are cut, so the spelt token "
            "cannot be located; use another template, or leave the record out"
        )
    return spans if exact else []


def _answer_spans(whole: str, parts: Sequence[str], end: str) -> list[Span]:
    """Span of each answer in the rendering, from the end of its prompt to the end of its message.

    Some templates (Phi-3's) write the end token `end` after the last message, so it ends the text of a prefix but is
    not in the whole text at this offset: there it is removed.
    """
    spans = []
    for prompt, done in zip(parts[::2], parts[1::2], strict=True):
        done = done if whole.startswith(done) else done.removesuffix(end)
        if not whole.startswith(prompt) or not whole.startswith(done) or len(done) < len(prompt):
            raise UnstableTemplate(
                "the chat template writes earlier messages differently when more follow (or an answer does not begin "
                "with its generation prompt), so the tokens of the answers are unknown; use loss_on: all, or another "
                "template"
            )
        spans.append((len(prompt), len(done)))
    return spans
