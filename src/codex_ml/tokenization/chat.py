"""Chat messages to tokens: the tokenizer's own template, rendered in a sandbox, with the answers marked.

A special token that the template writes is control. One that a message spells is data, and so are its pieces: contents
get marks around such places before they are rendered, so that the two can be told apart behind the template.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.errors import UserError
from codex_ml.tokenization.layout import CHATML
from codex_ml.tokenization.limited import LimitedChild
from codex_ml.tokenization.tokenizer import TextTokenizer
from codex_ml.tokenization.worker import render

TEMPLATE_BYTES = 64 << 10
MARKS = "\U000f0000\U000f0001"  # private use: around what a message spells
Span = tuple[int, int]  # characters, half-open


def encode_chat(
    tokenizer: TextTokenizer, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Render and encode one conversation.

    Args:
        messages: {"role": ..., "content": ..., ...} each, as templates read them.
        tools: JSON schemas of functions, or None.

    Returns:
        (ids, trained): (n,) uint32 and (n,) bool; trained marks the assistant's tokens and the special token that ends
        each of its messages. What stands before the first trained token is what generation has to be given.

    Raises:
        UserError: without a template; when the template fails, passes its limits (64 KiB of source, 2 s of processor
            time, 1 GiB), or what it writes for the first messages is no beginning of what it writes for all, so that
            nobody can say which tokens are an answer.
    """
    control = _control_pattern(tokenizer)
    answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    prefixes = [(len(messages), False), *((i + last, not last) for i in answers for last in (0, 1))]
    whole, *parts = _render(tokenizer, messages, tools, control, prefixes)
    return _encode(tokenizer, whole, _pieces(whole, control, tokenizer), _answer_spans(whole, parts))


def encode_prompt(
    tokenizer: TextTokenizer, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None = None
) -> NDArray[np.uint32]:
    """What generation of the next answer is given: (n,) uint32; see `encode_chat`.

    Blanks at the end of the generation prompt are left out: tokenizers join a blank to the word that follows, so in
    training it stood in the answer's first token.
    """
    control = _control_pattern(tokenizer)
    [prompt] = _render(tokenizer, messages, tools, control, [(len(messages), True)])
    prompt = prompt.rstrip(" ")
    return _encode(tokenizer, prompt, _pieces(prompt, control, tokenizer), [])[0]


def checked_template(tokenizer: TextTokenizer) -> str:
    """The chat template.

    Raises:
        UserError: when there is none or it is larger than 64 KiB.
    """
    template = tokenizer.chat_template
    if template is None:
        raise UserError(
            "the tokenizer has no chat template, and these records are chat messages; set tokenizer.chat_template: "
            "chatml, or give records of text"
        )
    if len(template.encode("utf-8")) > TEMPLATE_BYTES:
        raise UserError(f"the chat template is larger than {TEMPLATE_BYTES} bytes; no real one is")
    return template


@lru_cache(maxsize=1)
def _child() -> LimitedChild:
    child = LimitedChild("render")
    atexit.register(child.close)
    return child


def _render(
    tokenizer: TextTokenizer,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Any] | None,
    control: re.Pattern[str],
    prefixes: Sequence[tuple[int, bool]],
) -> list[str]:
    """The rendering of each prefix: (number of messages, whether the generation prompt follows)."""
    template = checked_template(tokenizer)
    _refuse_marks(messages, tools)
    request = {
        "template": template,
        "messages": _marked(list(messages), control),
        "tools": _marked(list(tools), control) if tools else None,
        "variables": {name: text for name, text in _names(tokenizer).items() if text is not None},
        "prefixes": prefixes,
    }
    try:
        return render(request) if template == CHATML else list(_child().ask(request))
    except UserError as error:
        raise UserError(f"the chat template cannot be rendered: {error}") from None
    except Exception as error:  # of our own template: a message without role or content
        raise UserError(f"the chat template cannot be rendered: {type(error).__name__}: {error}") from None


def _names(tokenizer: TextTokenizer) -> dict[str, str | None]:
    by_id = {number: text for text, number in tokenizer.special.items()}
    roles = {"bos": tokenizer.bos, "eos": tokenizer.end, "pad": tokenizer.pad, "unk": tokenizer.unk}
    return {f"{role}_token": by_id.get(number) for role, number in roles.items() if number is not None}


def _refuse_marks(*values: Any) -> None:
    for value in values:
        if isinstance(value, str):
            if any(mark in value for mark in MARKS):
                raise UserError("a chat message holds U+F0000 or U+F0001, private-use characters that are needed here")
        elif isinstance(value, dict):
            _refuse_marks(*value.keys(), *value.values())
        elif isinstance(value, list | tuple):
            _refuse_marks(*value)


def _control_pattern(tokenizer: TextTokenizer) -> re.Pattern[str]:
    """Special tokens, the longest first, with the blanks that their definition swallows."""
    flags = {token.content: token for token in tokenizer.backend.get_added_tokens_decoder().values() if token.special}
    ways = []
    for text in sorted(flags, key=lambda text: (-len(text), text)):
        way = re.escape(text)
        if flags[text].single_word:
            way = rf"(?<!\w){way}(?!\w)"
        before, after = (r"\s*" if swallows else "" for swallows in (flags[text].lstrip, flags[text].rstrip))
        ways.append(f"{before}({way}){after}")
    return re.compile("|".join(ways) or "(?!)")


def _marked(value: Any, control: re.Pattern[str]) -> Any:
    """The same messages with marks around what would be control, in all texts and keys."""
    if isinstance(value, str):
        return control.sub(lambda match: f"{MARKS[0]}{match.group()}{MARKS[1]}", value)
    if isinstance(value, dict):
        return {_marked(key, control): _marked(item, control) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, control) for item in value]
    return value


def _answer_spans(whole: str, parts: Sequence[str]) -> list[Span]:
    """Where each answer stands in the rendering: from the end of its prompt to the end of its message."""
    spans = []
    for prompt, done in zip(parts[::2], parts[1::2], strict=True):
        if not whole.startswith(prompt) or not whole.startswith(done) or len(done) < len(prompt):
            raise UserError(
                "the chat template writes earlier messages differently once more follow (or its generation prompt is "
                "not how an answer begins), so the tokens of the answers cannot be told; use loss_on: all, or another "
                "template"
            )
        spans.append((len(prompt), len(done)))
    return spans


def _pieces(whole: str, control: re.Pattern[str], tokenizer: TextTokenizer) -> list[tuple[Span, int | None]]:
    """(span, id) of control tokens and (span, None) of the text between; marked places are text."""
    pieces: list[tuple[Span, int | None]] = []
    data = [match.span() for match in re.finditer(f"{MARKS[0]}[^{MARKS}]*{MARKS[1]}", whole)]
    if whole.count(MARKS[0]) != len(data) or whole.count(MARKS[1]) != len(data):
        raise UserError("the chat template takes messages apart inside a special token that one of them spells")
    end = 0
    for (_, begin), (stop, _) in pairwise([(0, 0), *data, (len(whole), len(whole))]):
        for match in control.finditer(whole, begin, stop):
            if match.start() > end:
                pieces.append(((end, match.start()), None))
            text = next(group for group in match.groups() if group is not None)
            pieces.append((match.span(), tokenizer.special[text]))
            end = match.end()
    if end < len(whole):
        pieces.append(((end, len(whole)), None))
    return pieces


def _encode(
    tokenizer: TextTokenizer, whole: str, pieces: Sequence[tuple[Span, int | None]], spans: Sequence[Span]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    ids: list[int] = []
    ends: list[int] = []  # of each token, in characters of `whole`
    controls: list[bool] = []
    for (start, stop), number in pieces:
        found = [(number, stop)] if number is not None else _text_tokens(tokenizer, whole, start, stop)
        ids += [token for token, _ in found]
        ends += [end for _, end in found]
        controls += [number is not None] * len(found)
    trained = np.zeros(len(ids), dtype=np.bool_)
    places = np.array(ends, dtype=np.int64)
    for begin, stop in spans:
        inside = np.flatnonzero((places > begin) & (places <= stop))
        last = next((i for i in inside[::-1] if controls[i]), None)  # the line break behind it is the template's
        trained[inside if last is None or _has_text(ids, inside, last, tokenizer) else inside[inside <= last]] = True
    return np.array(ids, dtype=np.uint32), trained


def _has_text(ids: Sequence[int], inside: NDArray[np.int64], last: int, tokenizer: TextTokenizer) -> bool:
    """Whether more than white space follows the last control token of an answer."""
    return bool(tokenizer.decode([ids[i] for i in inside if i > last]).strip())


def _text_tokens(tokenizer: TextTokenizer, whole: str, start: int, stop: int) -> list[tuple[int, int]]:
    """(id, end in `whole`) of the tokens of a text that holds no control token, its marks taken out."""
    part = whole[start:stop]
    kept = np.array([i for i, character in enumerate(part) if character not in MARKS], dtype=np.int64)
    encoding = tokenizer.backend.encode("".join(part[i] for i in kept), add_special_tokens=False)
    ends = [start + int(kept[end - 1]) + 1 if end else start for _, end in encoding.offsets]
    return list(zip(encoding.ids, ends, strict=True))
