"""A conversation in the terminal: one message per line, one answer per message. Used by: generate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from codex_ml.cli.prompt_text import MOST_BYTES, as_text
from codex_ml.cli.text_session import TextSession
from codex_ml.core.errors import CheckFailed, UserError

SIGN = "> "  # before a message that is typed
TYPED = 4095  # bytes of a line of a terminal; Linux drops what follows them without a word (N_TTY_BUF_SIZE)


def converse(
    session: TextSession, first: str, *, seed: int, show: Callable[[str], bool], say: Callable[[str], None]
) -> None:
    """Answer the first message, if there is one, and then each line of standard input, until it ends.

    The model reads the whole conversation each time. A message or an answer that the policy refuses leaves it.

    Raises:
        UserError: without a chat template, or when the conversation is longer than the model sees at once.
        CheckFailed: at the end, when the policy refused something.
    """
    if session.loaded.tokenizer.chat_template is None:
        raise UserError("--chat needs a chat template, and the tokenizer of this model has none; leave --chat out")
    talk, refused = list[dict[str, Any]](), 0
    for message in _messages(first, say):
        try:
            text, _ = session.screened(message)
        except CheckFailed as error:
            refused += 1
            say(str(error))
            continue
        asked = session.answered([*talk, {"role": "user", "content": text}])
        try:
            answer = session.write(asked, f"{text}\n", seed=seed + len(talk), show=show)
        finally:
            show("\n")  # also after Ctrl-C, so that the error has a line of its own
        say(session.speed.words)
        if answer.decision == "refuse":
            refused += 1
            continue
        talk += [{"role": "user", "content": text}, {"role": "assistant", "content": answer.text}]
    if refused:
        raise CheckFailed(f"the policy refused {refused} messages or answers of the conversation")


def _messages(first: str, say: Callable[[str], None]) -> Iterator[str]:
    if first:
        yield first
    typed = sys.stdin.isatty()
    while True:
        if typed:
            print(SIGN, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.buffer.readline(MOST_BYTES + 1)
        except KeyboardInterrupt:
            say("")  # the error gets a line of its own, after ^C
            raise
        if not line:
            return
        if len(line) > MOST_BYTES:
            raise UserError(f"a message holds more than {MOST_BYTES} bytes; it must be shorter")
        if typed and len(line.rstrip(b"\n")) >= TYPED:
            say(f"a terminal cuts a line after {TYPED} bytes, so this one is not sent; pass a long text by a pipe")
            continue
        if (text := as_text(line, "a message")).strip():
            yield text.rstrip("\r\n")
