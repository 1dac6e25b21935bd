"""Stop strings are found across the borders of tokens and of characters, and the text is cut before the first one."""

from __future__ import annotations

import random

import pytest

from codex_ml.inference.growing_text import Ending, GrowingText
from codex_ml.inference.stop_strings import BegunStop, cut_at_stop
from codex_ml.tokens.borders import decode_after

from ..tokenizer.conftest import loaded, trained

__all__ = ["loaded", "trained"]
TEXT = "def f(a):\n    return 'ä€😀' + a\n\n\nclass B:\n    pass\n"


def first_find(tokenizer, ids, stops):
    """(number of tokens, text) at the first token after which a stop string is in the text."""
    growing = GrowingText(tokenizer, [], Ending(frozenset(), tuple(stops), 10**6))
    for token in ids:
        growing.add(token)
        if growing.finished:
            return len(growing.tokens), growing.text
    return None


@pytest.mark.parametrize("kind", ["byte_bpe", "unigram", "sentencepiece_bpe"])
@pytest.mark.parametrize(
    "stop", ["f(a)", "\n\n\nclass", "ä", "€", "😀", "€😀' +", "\n", "pass\n", " ", "d", "return 'ä€😀' + a\n\n\ncl"]
)
def test_a_stop_string_is_found_at_the_token_that_completes_it(loaded, kind, stop):
    tokenizer = loaded(kind)
    ids = tokenizer.encode(TEXT).tolist()
    count, before = first_find(tokenizer, ids, [stop])
    assert before == TEXT[: TEXT.index(stop)]
    decoded = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    assert count == next(count for count, text in enumerate(decoded) if stop in text)


def test_the_first_of_several_stop_strings_counts(loaded):
    tokenizer = loaded("byte_bpe")
    ids = tokenizer.encode(TEXT).tolist()
    assert first_find(tokenizer, ids, ["class", "return", "def g"])[1] == "def f(a):\n    "
    assert cut_at_stop(TEXT, ["class", "return"]) == "def f(a):\n    "
    assert cut_at_stop(TEXT, ["import"]) is None
    assert first_find(tokenizer, ids, ["import", "€ä"]) is None
    assert first_find(tokenizer, ids, []) is None


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


def test_a_step_decodes_few_tokens_however_long_the_stop_strings_are(loaded):
    class Counting:
        """The tokenizer, with the sizes of what it decodes."""

        def __init__(self, tokenizer):
            self.tokenizer, self.sizes = tokenizer, []

        def decode(self, ids):
            self.sizes.append(len(ids))
            return self.tokenizer.decode(ids)

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

    text = "def größer(x):\n    return x\n" * 40
    tokenizer, stop = Counting(loaded("byte_bpe")), "def " + "x" * 996
    growing, shown = GrowingText(tokenizer, [], Ending(frozenset(), (stop,) * 4, 10**6)), ""
    for token in tokenizer.encode(text).tolist():
        growing.add(token)
        shown += growing.take()
        assert shown == growing.text[: len(growing.text) - longest_beginning(growing.text, stop)]
    assert growing.text == text
    assert max(tokenizer.sizes) <= 64


@pytest.mark.parametrize("kind", ["byte_bpe", "unigram", "sentencepiece_bpe", "sentencepiece_unigram"])
def test_a_text_that_follows_a_token_keeps_its_first_space(loaded, kind):
    """Decoded alone, SentencePiece's rules remove it."""
    tokenizer = loaded(kind)
    ids = tokenizer.encode("a return 'ä€😀'\n  b").tolist()
    for place in range(1, len(ids)):
        whole, before = tokenizer.decode(ids), tokenizer.decode(ids[:place])
        if whole.startswith(before):  # else the place is inside a character
            assert before + decode_after(tokenizer, ids[:place], ids[place:]) == whole
    assert decode_after(tokenizer, [*ids, tokenizer.end], ids) == tokenizer.decode(ids)
