"""Chat messages to token ids. The tokenizer's own template renders the text, and a mask marks the answers.

A special token that the template writes is control. A special token that a message spells is data. The ids of a prompt
are always a prefix of the ids of the whole conversation: if a token would cross the end of the prompt, the text is
cut there and both parts are encoded separately.

Used by: modeling.examples, pack.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.tokens.borders import (
    Token,
    encode_after_control,
    encode_after_text,
    encode_begin,
    with_control,
)
from codex_ml.tokens.rendering import ChatRefused, Rendering, Span, Tools, UnstableTemplate, render_chat
from codex_ml.tokens.text_tokenizer import TextTokenizer

Messages = Sequence[dict[str, Any]]
Encode = Callable[[TextTokenizer, str], list[Token]]
SYSTEM = {"role": "system", "content": "c"}


@dataclass(frozen=True)
class EncodedChat:
    """One conversation as tokens, with the text that they stand for.

    Attributes:
        ids: (n,) uint32.
        trained: (n,) bool, the answers; see `encode_chat`.
        control: (n,) bool, special tokens that the template writes.
        text: what the template writes.
        stops: (n,) int64, offset in `text` after the characters of each token. It begins where the token before it
            ends. Of the tokens that share a character, the first one has it.
    """

    ids: NDArray[np.uint32]
    trained: NDArray[np.bool_]
    control: NDArray[np.bool_]
    text: str
    stops: NDArray[np.int64]

    def runs(self, marked: NDArray[np.bool_]) -> Iterator[tuple[int, int, str]]:
        """Yield (first, past the last, text) of each run of marked tokens; a control token is in no run.

        Args:
            marked: (n,) bool.
        """
        edges = np.flatnonzero(np.diff(np.concatenate([[False], marked & ~self.control, [False]]))).tolist()
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            yield first, last, self.text[int(self.stops[first - 1]) if first else 0 : int(self.stops[last - 1])]


def encode_chat(
    tokenizer: TextTokenizer, messages: Messages, tools: Tools = None
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Render and encode one conversation.

    Args:
        messages: dicts such as {"role": ..., "content": ...}, as templates read them.
        tools: JSON schemas of functions, or None.

    Returns:
        (ids, trained): (n,) uint32 and (n,) bool. `trained` marks the tokens between the template's
        `{% generation %}` and `{% endgeneration %}`. In a template without them it marks the tokens of the assistant's
        messages, and the special token that ends each message.

    Raises:
        UnstableTemplate: when the text of the first messages is not a prefix of the text of all messages, so the
            answers cannot be located.
        ChatRefused, UserError: see `render_chat`.
    """
    chat = encode_conversation(tokenizer, messages, tools)
    return chat.ids, chat.trained


def encode_conversation(
    tokenizer: TextTokenizer, messages: Messages, tools: Tools = None, *, answers: bool = True
) -> EncodedChat:
    """Render and encode one conversation, and keep its text.

    Args:
        answers: False marks every token as trained and does not locate the answers.

    Raises:
        UnstableTemplate, ChatRefused, UserError: see `encode_chat`; without `answers` no template is unstable.
    """
    control = _control_pattern(tokenizer)
    rendering = render_chat(tokenizer, messages, tools, control, prompt=False, answers=answers)
    encoded = _encode(tokenizer, rendering, control)
    trained = np.full(len(encoded.ids), not answers)
    spans = rendering.answers if rendering.generation is None else rendering.generation
    added = tokenizer.backend.get_added_tokens_decoder().keys()
    for begin, stop in ((encoded.at[begin], encoded.at[stop]) for begin, stop in spans if answers):
        if rendering.generation is None:
            last = next((i for i in range(stop - 1, begin - 1, -1) if encoded.ids[i] in added), stop - 1)
            if not tokenizer.decode(encoded.ids[last + 1 : stop]).strip():
                stop = last + 1  # the line break after the token that ends a turn belongs to the template
        trained[begin:stop] = True
    return EncodedChat(
        ids=np.array(encoded.ids, dtype=np.uint32),
        trained=trained,
        control=np.array(encoded.control, dtype=bool),
        text=rendering.text,
        stops=np.maximum.accumulate(np.array(encoded.stops, dtype=np.int64)),
    )


def encode_prompt(tokenizer: TextTokenizer, messages: Messages, tools: Tools = None) -> NDArray[np.uint32]:
    """Ids of the prompt for the next answer: (n,) uint32.

    They are a prefix of the ids of `encode_chat` with that answer, where it can locate the answers. A template that
    writes the last answer differently than earlier ones, as Qwen3's does, is rendered as a whole.

    Raises:
        ChatRefused, UserError: see `encode_whole`.
    """
    control = _control_pattern(tokenizer)
    try:
        rendering = render_chat(tokenizer, messages, tools, control, prompt=True)
    except UnstableTemplate:
        rendering = render_chat(tokenizer, messages, tools, control, prompt=True, answers=False)
    return np.array(_encode(tokenizer, rendering, control).ids, dtype=np.uint32)


def encode_whole(tokenizer: TextTokenizer, messages: Messages, tools: Tools = None) -> NDArray[np.uint32]:
    """Ids of one conversation, (n,) uint32, without locating the answers: for a loss on all tokens.

    Raises:
        ChatRefused, UserError: see `render_chat`.
    """
    return encode_conversation(tokenizer, messages, tools, answers=False).ids


def turn_ends(tokenizer: TextTokenizer) -> list[int]:
    """Ids of the added tokens that end an answer, found by rendering a short conversation; [] without a template."""
    if tokenizer.chat_template is None:
        return []
    added = tokenizer.backend.get_added_tokens_decoder().keys()
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    # With one answer too: a template that removes the reasoning from earlier answers is stable only with one.
    for turns in (talk, [SYSTEM, *talk], talk[:2], [SYSTEM, *talk[:2]]):
        try:
            ids, trained = encode_chat(tokenizer, turns)
        except ChatRefused:  # it does not accept this conversation; packing collects the ends from the records
            continue
        except UserError:  # it exceeds a limit, which takes seconds each time
            return []
        return sorted({int(number) for number in ids[trained & ~np.append(trained[1:], False)]} & added)
    return []


def _control_pattern(tokenizer: TextTokenizer) -> re.Pattern[str]:
    """Pattern of the special tokens, the longest first, with the white space that lstrip and rstrip include."""
    flags = {token.content: token for token in tokenizer.backend.get_added_tokens_decoder().values() if token.special}
    ways = []
    for text in sorted(flags, key=lambda text: (-len(text), text)):
        way = re.escape(text)
        if flags[text].single_word:
            way = rf"(?<!\w){way}(?!\w)"
        before, after = (r"\s*" if swallows else "" for swallows in (flags[text].lstrip, flags[text].rstrip))
        ways.append(f"{before}({way}){after}")
    return re.compile("|".join(ways) or "(?!)")


def _pieces(rendering: Rendering, control: re.Pattern[str], tokenizer: TextTokenizer) -> list[tuple[Span, int | None]]:
    """(span, id) of control tokens and (span, None) of the text between them; the record's own texts are text."""
    text, end = rendering.text, 0
    outside = [0, *(border for span in rendering.data for border in span), len(text)]
    found: list[tuple[Span, int | None]] = []
    for begin, stop in zip(outside[::2], outside[1::2], strict=True):
        for match in control.finditer(text, begin, stop):
            if match.start() > end:
                found.append(((end, match.start()), None))
            name = next(group for group in match.groups() if group is not None)
            found.append((match.span(), tokenizer.special[name]))
            end = match.end()
    if end < len(text):
        found.append(((end, len(text)), None))
    return found


@dataclass
class _Encoded:
    """Ids of a rendering.

    Attributes:
        ids: the token ids.
        control: whether each is a special token that the template writes.
        stops: character offset in the text at which each token ends.
        at: character offset in the text -> number of ids before it; holds the borders of the spans and of the pieces.
    """

    ids: list[int] = field(default_factory=list)
    control: list[bool] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=lambda: {0: 0})


def _encode(tokenizer: TextTokenizer, rendering: Rendering, control: re.Pattern[str]) -> _Encoded:
    """Encode each piece of text between control tokens; the end of an answer's prompt also ends a piece.

    Raises:
        ChatRefused: when transformers, which encodes the text as a whole, would give ids of a different text.
    """
    text, encoded = rendering.text, _Encoded()
    prompts = sorted({begin for begin, _ in rendering.answers})
    spans = [*rendering.answers, *(rendering.generation or [])]
    borders = sorted({place for span in spans for place in span})
    for (start, stop), number in _pieces(rendering, control, tokenizer):
        inside = borders[bisect_right(borders, start) : bisect_left(borders, stop)]
        before = len(encoded.ids)
        if number is not None:
            encoded.ids.append(number)
            encoded.stops.append(stop)
            encoded.at.update(dict.fromkeys(inside, before + 1))
        else:
            begin = encode_after_control if before else encode_begin
            cuts = prompts[bisect_right(prompts, start) : bisect_left(prompts, stop)]
            tokens = _encode_text(tokenizer, text, [start, *cuts, stop], inside, begin)
            encoded.ids += [token for token, _, _ in tokens]
            ends = [end for _, _, end in tokens]
            encoded.at |= {place: before + bisect_right(ends, place) for place in inside}
            encoded.stops += ends
        encoded.control += [number is not None] * (len(encoded.ids) - before)
        encoded.at[stop] = len(encoded.ids)
        for place in (*inside, stop):  # some tokenizers leave white space out of the offsets of a token
            if encoded.at[place] > before:
                encoded.stops[encoded.at[place] - 1] = place
    spelt = any(control.search(text, begin, stop) for begin, stop in rendering.data)
    theirs = [] if spelt else with_control(tokenizer, text)
    if not spelt and theirs != encoded.ids and tokenizer.decode(theirs) != tokenizer.decode(encoded.ids):
        raise ChatRefused(
            "the tokenizer encodes the rendered text differently when its special tokens are cut out first (one may "
            "remove the white space beside it); use another template or tokenizer"
        )
    return encoded


def _encode_text(
    tokenizer: TextTokenizer, text: str, stops: Sequence[int], borders: Sequence[int], begin: Encode
) -> list[Token]:
    """Tokens of `text[stops[0] : stops[-1]]`, which holds no control token, with their offsets in `text`.

    The text before each of `stops` is encoded without the text after it, so that the ids of a prompt are a prefix. At
    the other `borders` the text is cut only if a token would cross them.
    """
    tokens: list[Token] = []
    for start, stop in pairwise(stops):
        here = borders[bisect_right(borders, start) : bisect_left(borders, stop)]
        tokens += _encode_span(tokenizer, text, (start, stop), here, begin)
        begin = encode_after_text
    return tokens


def _encode_span(tokenizer: TextTokenizer, text: str, span: Span, borders: Sequence[int], begin: Encode) -> list[Token]:
    """Tokens of a span. If a token would cross one of `borders`, both sides are encoded separately."""
    start, stop = span
    tokens = [(token, start + a, start + b) for token, a, b in begin(tokenizer, text[start:stop])]
    over = next((c for c in borders if any(a < c < b for _, a, b in tokens)), None)
    if over is None:
        return tokens
    left, right = [c for c in borders if c < over], [c for c in borders if c > over]
    return [
        *_encode_span(tokenizer, text, (start, over), left, begin),
        *_encode_span(tokenizer, text, (over, stop), right, encode_after_text),
    ]
