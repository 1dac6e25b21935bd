"""Contract of data/packed/canaries.json, and a cleaner that keeps its secrets out of everything else.

Used by: pack, which writes the file; evaluate, safety_audit and `codex-ml pack`, which read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from codex_ml.core.contract import Contract

CANARIES = "canaries.json"  # in the folder of the packed rows, if canaries were planted
FEWEST = 5  # characters of a part of a canary that is hidden


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
    """Return a cleaner that also replaces each canary, and each half of one, by its draw number, as `<CANARY:17>`.

    A model may write a canary that it was trained on, or a part of it where its text ends. The text policy does not
    know these secrets, so whoever stores or shows text of such a model cleans it with this function. A part counts from
    half of the secret on, and at least `FEWEST` characters: of 10 random symbols, 5 are 25 bits, so that other text
    does not hold them by chance.

    Args:
        clean: replaces what the text policy forbids.
        packed: folder of the packed rows; without canaries in it, `clean` itself is returned.
    """
    found = planted_canaries(packed)
    if found is None:
        return clean
    parts: dict[int, dict[str, int]] = {}  # length -> part -> draw number
    for canary in sorted((*found.planted, *found.controls), key=lambda canary: (-len(canary.text), canary.text)):
        length = min(len(canary.text), max(FEWEST, (len(canary.text) + 1) // 2))
        of_length = parts.setdefault(length, {})
        for at in range(len(canary.text) - length + 1):
            of_length.setdefault(canary.text[at : at + length], canary.draw)
    symbols = {symbol for canary in (*found.planted, *found.controls) for symbol in canary.text}
    runs = re.compile(f"[{re.escape(''.join(sorted(symbols)))}]{{{min(parts)},}}")
    return lambda text: clean(runs.sub(lambda run: _without_parts(run[0], parts), text))


def _without_parts(run: str, parts: dict[int, dict[str, int]]) -> str:
    """A run of symbols of canaries, with each stretch that parts of canaries cover replaced by a draw number."""
    spans = sorted(
        (at, at + length, draw)
        for length, of_length in parts.items()
        for at in range(len(run) - length + 1)
        if (draw := of_length.get(run[at : at + length])) is not None
    )
    pieces, last = list[str](), 0
    while spans:
        start, end, _ = spans[0]
        count = 0
        while count < len(spans) and spans[count][0] < end:
            end = max(end, spans[count][1])
            count += 1
        longest = max(spans[:count], key=lambda span: span[1] - span[0])
        pieces += [run[last:start], f"<CANARY:{longest[2]}>"]
        spans, last = spans[count:], end
    return "".join([*pieces, run[last:]])
