"""Stop strings are found across the borders of tokens and of characters, and the text is cut before the first one."""

from __future__ import annotations

import pytest

from codex_ml.inference.stop_strings import StopStrings, cut_at_stop
from codex_ml.tokens.borders import decode_after

from ..tokenizer.conftest import loaded, trained

__all__ = ["loaded", "trained"]
TEXT = "def f(a):\n    return 'ä€😀' + a\n\n\nclass B:\n    pass\n"


def first_find(tokenizer, ids, stops):
    """(number of tokens, text) at the first token after which a stop string is in the text."""
    finder = StopStrings(tokenizer, stops)
    for count in range(1, len(ids) + 1):
        if finder.in_tail(ids[:count]):
            return count, cut_at_stop(tokenizer.decode(ids[:count]), stops)
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


def test_the_cost_of_a_token_does_not_grow_with_the_text():
    class Counting:
        longest = 0

        def decode(self, ids):
            self.longest = max(self.longest, len(ids))
            return "x" * len(ids)

    tokenizer = Counting()
    finder = StopStrings(tokenizer, ["€€", "\n"])
    assert not any(finder.in_tail(list(range(count))) for count in range(1000))
    assert tokenizer.longest == len("€€".encode()) + 8


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
