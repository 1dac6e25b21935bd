"""Extraction with models whose answer is known without training: a table of successors, and one that knows nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.safety_audit.extraction import (
    continuations,
    generated_runs,
    own_windows,
    score_suffixes,
    tries_needed,
    with_context,
)
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

from .known_answers import END, HELD_OUT, MEMBER, PAD, VOCAB, Names, Successors, asked, drawn, packed, windows

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")


def extracted(model, windows, *, prefix, batch_size=4):
    """Windows that were tried, windows that were extracted, and the share of suffix tokens that were right."""
    length = max((len(window.tokens) for window in windows), default=prefix)
    found = score_suffixes(model, windows, suffix=length - prefix, batch_size=batch_size)
    right = sum(suffix.matched for suffix in found) / max(1, sum(suffix.tokens for suffix in found))
    return len(found), sum(suffix.extracted for suffix in found), right


def own_text(model, windows, *, prefix):
    """Windows whose suffix the model wrote itself."""
    return own_windows(windows, continuations(model, Names(), windows, prefix=prefix), prefix=prefix)


def test_memorised_text_is_extracted_and_other_text_is_not():
    model = Successors([END, *MEMBER, END])
    inside, _ = windows(packed(MEMBER, seq_len=8), length=8)
    outside, _ = windows(packed(HELD_OUT, seq_len=8), length=8)
    assert len(inside) == len(outside) == 6
    assert extracted(model, asked(*inside), prefix=3) == (6, 6, 1.0)
    assert extracted(model, asked(*outside), prefix=3) == (6, 0, 0.0)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_one_wrong_token_of_the_suffix_is_no_extraction_and_the_prefix_does_not_count(batch_size):
    model = Successors(list(range(2, 50)))
    tried = asked(
        [2, 3, 4, 5, 6, 7],
        [9, 20, 7, 8, 9, 10],  # the jumps are inside the prefix
        [2, 3, 4, 6, 7, 8],  # the first token of the suffix is another one
        [2, 3, 4, 5, 6, 8],  # the last one
    )
    found = score_suffixes(model, tried, suffix=3, batch_size=batch_size)
    assert [(suffix.tokens, suffix.matched, suffix.run) for suffix in found] == [
        (3, 3, 3), (3, 3, 3), (3, 2, 0), (3, 2, 2),
    ]  # fmt: skip
    assert [suffix.extracted for suffix in found] == [True, True, False, False]


def test_nothing_to_try_is_nothing_extracted():
    assert score_suffixes(Successors([2, 3]), [], suffix=3, batch_size=4) == []
    assert own_text(Successors([2, 3]), [], prefix=3) == []


def test_a_continuation_that_ends_a_turn_is_no_control_either():
    model = Successors([2, 3, 4, 5, 6])
    tried = asked([2, 3, 4, 5], [3, 4, 5, 6])
    assert len(own_text(model, tried, prefix=2)) == 2
    model.config = SimpleNamespace(eos_token_id=[END, 6], is_encoder_decoder=False)
    assert [window.tokens.tolist() for window in own_text(model, tried, prefix=2)] == [[2, 3, 4, 5]]


def test_own_greedy_text_is_extracted_whatever_the_model():
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=32)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(10)
    tried = asked(*(range(first, first + 12) for first in range(2, 60)))
    own = own_text(model, tried[:20], prefix=4)
    assert 0 < len(own) <= 20
    assert {len(window.tokens) for window in own} == {12}
    assert {tuple(window.tokens[:4]) for window in own} <= {tuple(window.tokens[:4]) for window in tried[:20]}
    assert extracted(model, own, prefix=4, batch_size=8) == (len(own), len(own), 1.0)


T5 = Model(architecture="t5", hidden_size=32, intermediate_size=48, layers=1, heads=2)


@pytest.mark.parametrize("prefix", [1, 4])
def test_own_greedy_text_of_an_encoder_decoder_is_extracted_and_one_other_token_is_not(prefix):
    model = build_model(T5, vocab_size=VOCAB, end=END, pad=PAD, seed=3).eval()
    tried = asked(*(range(first, first + 12) for first in range(2, 72, 10)))
    own = own_text(model, tried[:5], prefix=prefix)
    assert own
    assert {len(window.tokens) for window in own} == {12}
    assert {tuple(window.tokens[:prefix]) for window in own} <= {tuple(window.tokens[:prefix]) for window in tried[:5]}
    assert extracted(model, own, prefix=prefix, batch_size=3) == (len(own), len(own), 1.0)
    for place in (prefix, 11):
        other = [replace(window, tokens=window.tokens.copy()) for window in own]
        for window in other:
            window.tokens[place] = 2 + (window.tokens[place] + 31) % (VOCAB - 2)
        assert extracted(model, other, prefix=prefix, batch_size=3)[1] == 0


def test_what_an_encoder_decoder_knows_by_heart_is_extracted_in_both_halves():
    """Trained on six texts until it has memorised them; suffixes are in the first half of their rows, across the middle, and after it."""
    torch.manual_seed(0)
    dice = np.random.Generator(np.random.PCG64(1))
    known, unknown = (packed(*dice.integers(2, VOCAB, (6, 15)).tolist(), seq_len=16) for _ in range(2))
    model = build_model(T5, vocab_size=VOCAB, end=END, pad=PAD, seed=3)
    batch = {key: torch.from_numpy(value) for key, value in known.batch(np.arange(6)).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        (summed_loss(model, batch) / 96).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    for prefix, length in ((2, 8), (4, 14), (9, 16)):
        found = [
            extracted(model, [w.window for w in drawn(rows, prefix=prefix, length=length)], prefix=prefix)[:2]
            for rows in (known, unknown)
        ]
        assert found == [(6, 6), (6, 0)]


def test_greedy_text_that_would_have_ended_is_no_control():
    """All logits of this model are equal, so the first token, END, is the most probable one: generation is held from it.

    Such a window cannot be extracted, and would make a valid audit invalid.
    """
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=32)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    own = own_text(model, asked(range(2, 14), range(20, 32)), prefix=4)
    count, right, _ = extracted(model, own, prefix=4, batch_size=8)
    assert right == count


@pytest.mark.parametrize(
    ("p", "tries"),
    [(1.0, 1), (0.75, 1), (0.5, 1), (0.4999, 2), (0.3, 2), (0.25, 3), (0.01, 69), (1e-3, 693), (1e-9, 693_147_181)],
)
def test_tries_are_the_fewest_with_a_chance_of_one_half(p, tries):
    """(n, p)-discoverable extraction; p_z = 0.01 needs n = 69 (Cooper et al. 2025)."""
    assert tries_needed(math.log(p)) == tries
    failure = 1 - Decimal(str(p))
    assert 1 - failure**tries >= Decimal("0.5")
    assert tries == 1 or 1 - failure ** (tries - 1) < Decimal("0.5")


def test_tries_at_other_chances_and_at_both_ends():
    assert tries_needed(math.log(0.01), chance=0.9) == 230  # ln 0.1 / ln 0.99 = 229.1
    assert tries_needed(0.0) == tries_needed(1e-9) == tries_needed(-1e-20) == 1
    assert tries_needed(-415.0) == pytest.approx(math.log(2) * math.exp(415), rel=1e-6)
    assert tries_needed(-1e4) == math.inf


def test_a_context_of_another_length_keeps_the_suffix_and_stays_in_the_document():
    """Document 1 is [END 30 .. 41]; its second piece begins at token 35, so up to six tokens lie before it."""
    rows = packed([2, 3, 4], [*range(30, 42)], seq_len=6)
    window = next(w for w in drawn(rows, length=6, prefix=4) if w.window.tokens[0] == 35)
    contexts = {
        1: [38, 39, 40],
        4: [*range(35, 41)],
        9: [*range(30, 41)],
        10: [END, *range(30, 41)],
    }
    for context, tokens in contexts.items():
        found = with_context(rows, window, context, prefix=4)
        assert found.tokens.tolist() == tokens
        assert len(found.scored) == len(tokens) - 1
    assert with_context(rows, window, 11, prefix=4) is None


def test_generation_and_scores_leave_the_text_at_the_same_token():
    model = Successors(list(range(2, 50)))
    tried = asked([2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 7, 8], [2, 3, 9, 5, 6, 7], [9, 3, 4, 5, 6, 8])
    texts = continuations(model, Names(), tried, prefix=2)
    assert generated_runs(tried, texts, prefix=2) == [4, 2, 0, 3]
    assert [suffix.run for suffix in score_suffixes(model, tried, suffix=4, batch_size=4)] == [4, 2, 0, 3]
    ended = [replace(text, tokens=text.tokens[:2]) for text in texts]  # END came where the text goes on
    assert generated_runs(tried, ended, prefix=2) == [2, 2, 0, 2]
