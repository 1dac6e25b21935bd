"""Redact a text that a model wrote, as the policy sees it after its prompt. Used by: evaluate, safety_audit."""

from __future__ import annotations

from collections.abc import Callable

CONTEXT = 500  # characters of the prompt; the rules look at less


def redacted_output(redact: Callable[[str], str], prompt: str, output: str) -> str:
    """Return the output without what the text policy forbids.

    The end of the prompt is read too: after `password = "` more values are secrets than alone. A value that begins in
    the prompt gives a placeholder at the beginning of the output. The result is redacted once more by itself, because a
    value that touches the prompt is hidden by it.

    Args:
        redact: replaces what the policy forbids in a text.
    """
    before = prompt[-CONTEXT:]
    both = redact(before + output)
    return redact(both[_same(before, both) :])


def redacted_prompt(redact: Callable[[str], str], prompt: str, output: str) -> str:
    """Return the prompt without what the text policy forbids, and without half a value that the output completes."""
    alone = redact(prompt)
    return alone[: _same(alone, redact(prompt + output))]


def _same(one: str, other: str) -> int:
    """Number of characters at the beginning in which two texts agree."""
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
