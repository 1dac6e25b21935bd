"""The text of one answer while it grows: what is held back for a stop string, at a cost that does not grow with it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from codex_ml.serve.prompt_encoder import Served
from codex_ml.serve.row_text import BegunStop, Ending, RowText


def longest_beginning(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that `text` ends with, without the whole."""
    return max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


@pytest.mark.parametrize("seed", range(40))
def test_a_beginning_of_a_stop_string_is_found_at_each_step(seed: int) -> None:
    rng = random.Random(seed)
    stop = "".join(rng.choices("ab", [5, 1], k=rng.randint(1, 8)))
    begun, text = BegunStop(stop), ""
    while len(text) < 200:
        text += "".join(rng.choices("abc", [20, 4, 1], k=rng.randint(0, 4)))
        assert len(text) - begun.place(text) == longest_beginning(text, stop), (stop, text)


class CountedText(str):
    """A text that counts how often it is compared."""

    compared = 0

    def startswith(self, *given: object) -> bool:
        CountedText.compared += 1
        return super().startswith(*given)  # type: ignore[arg-type]


def test_the_search_compares_at_most_once_per_step_and_once_per_character(monkeypatch) -> None:
    """The worst text for it: each place could begin the stop string, which a later character shows to be wrong."""
    monkeypatch.setattr(CountedText, "compared", 0)
    begun, text = BegunStop(CountedText("a" * 998 + "b")), ""
    for step in range(3000):
        text += "c" if step % 900 == 899 else "a"
        begun.place(text)
    assert CountedText.compared <= 2 * len(text)


def test_a_step_decodes_few_tokens_however_long_the_stop_strings_are(tiny: Served) -> None:
    class Counting:
        """The tokenizer, with the sizes of what it decodes."""

        def __init__(self) -> None:
            self.sizes = list[int]()

        def decode(self, ids: Sequence[int]) -> str:
            self.sizes.append(len(ids))
            return tiny.tokenizer.decode(ids)

        def __getattr__(self, name: str) -> object:
            return getattr(tiny.tokenizer, name)

    text = "def größer(x):\n    return x\n" * 40
    ids = tiny.tokenizer.encode(text).tolist()
    tokenizer = Counting()
    row = RowText(tokenizer, [], Ending(frozenset(), ("def " + "x" * 996,) * 4, 10**6))
    for token in ids:
        row.add(token)
        assert row.text[: row.final()] == row.text[: len(row.text) - longest_beginning(row.text, "def ")]
    assert row.text == text
    assert max(tokenizer.sizes) <= 64
