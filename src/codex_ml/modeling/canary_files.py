"""Contract of data/packed/canaries.json, and a cleaner that keeps its secrets out of everything else.

Used by: pack, which writes the file; evaluate, safety_audit and `codex-ml pack`, which read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from codex_ml.core.contract import Contract

CANARIES = "canaries.json"  # in the folder of the packed rows, if canaries were planted


class CanaryFrame(Contract):
    """How canaries are made; see `codex_ml.modeling.canary_secrets`.

    Attributes:
        design: "random" or "unlikely".
        domain: "code" or "text", which chooses the text around the secret.
        secret_tokens: number of tokens of every secret.
        most_tokens: most tokens of a canary, with the text around its secret.
        pool: the 32 token ids of the design "unlikely"; empty for "random".
    """

    design: str
    domain: str
    secret_tokens: int
    most_tokens: int
    pool: list[int]


class Canary(Contract):
    """An invented secret in the text around it.

    Attributes:
        draw: number from which the secret is derived; it names the secret wherever its value must not appear.
        text: the secret alone.
        ids: token ids of the secret with the text around it.
        begin: index in `ids` of the first token of the secret.
        documents: numbers of the documents of the train stream that hold it; empty if it was never planted.
    """

    draw: int
    text: str
    ids: list[int]
    begin: int
    documents: list[int]


class CanaryList(Contract):
    """data/packed/canaries.json.

    Attributes:
        next_draw: further secrets of the same distribution follow from this draw number.
        repetitions: how often each of `planted` was to be planted, in the same order.
        planted: the secrets in the train stream.
        controls: secrets that were never planted.
    """

    written_by = "pack"

    frame: CanaryFrame
    next_draw: int
    repetitions: list[int]
    planted: list[Canary]
    controls: list[Canary]


def planted_canaries(packed: Path) -> CanaryList | None:
    """Read the canaries of a folder of packed rows; None if none were planted."""
    file = packed / CANARIES
    return CanaryList.read(file) if file.exists() else None


def hide_canaries(clean: Callable[[str], str], packed: Path) -> Callable[[str], str]:
    """Return a cleaner that also replaces each canary by its draw number, as `<CANARY:17>`.

    A model may write a canary that it was trained on. The text policy does not know these secrets, so whoever stores or
    shows text of such a model cleans it with this function.

    Args:
        clean: replaces what the text policy forbids.
        packed: folder of the packed rows; without canaries in it, `clean` itself is returned.
    """
    found = planted_canaries(packed)
    if found is None:
        return clean
    names = {canary.text: f"<CANARY:{canary.draw}>" for canary in (*found.planted, *found.controls)}
    longest_first = sorted(names, key=lambda text: (-len(text), text))
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return lambda text: clean(pattern.sub(lambda match: names[match[0]], text))
