"""The distribution that a token is drawn from is that of transformers' logits processors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from codex_ml.core.errors import UserError
from codex_ml.inference.sampling import Sampling, draw_keys, next_tokens, uniforms, weights

VOCAB = 50


def spread(logits, sampling):
    """Weights of all tokens: (rows, vocab) int64."""
    found, ids = weights(logits, sampling)
    return torch.zeros(logits.shape, dtype=torch.int64).scatter(1, ids, found)


def logits(rows=6):
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(2)) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, VOCAB, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 0.01])
def test_distribution_is_that_of_transformers(temperature, top_k, top_p):
    scores = TemperatureLogitsWarper(temperature)(None, logits())
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    theirs = scores.double().softmax(-1)
    found = spread(logits(), Sampling(1, temperature=temperature, top_k=top_k, top_p=top_p)).double()
    ours = found / found.sum(-1, keepdim=True)
    assert bool((theirs > 0)[ours > 0].all())
    assert bool((ours > 0)[theirs > 2**-39].all())  # below 2^-40 a probability has no weight
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2**-39)


def test_tokens_that_equal_the_last_of_top_k_are_drawn_too():
    """As in transformers: the bound is a score, not a place."""
    tied = torch.tensor([[3.0, 1.0, 1.0, 0.0]])
    assert (spread(tied, Sampling(1, temperature=1.0, top_k=2)) > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
def test_repetition_penalty_is_that_of_transformers(penalty):
    ids = torch.tensor([[1, 2, 2, 40], [3, 4, 5, 6]])
    seen = torch.zeros(2, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits(2))
    keys, greedy = torch.arange(2), Sampling(1, repetition_penalty=penalty)
    for sampling in (greedy, Sampling(1, temperature=1.0, repetition_penalty=penalty)):
        plain = replace(sampling, repetition_penalty=1.0)
        assert torch.equal(next_tokens(logits(2), sampling, keys, seen), next_tokens(theirs, plain, keys, None))
    assert torch.equal(next_tokens(logits(2), greedy, keys, seen), theirs.argmax(-1))


def test_tokens_are_drawn_as_often_as_they_are_probable():
    """Probabilities 1/2, 0, 1/4, 1/4 in 20,000 draws."""
    scores = torch.tensor([[math.log(2), -math.inf, 0.0, 0.0]]).expand(20_000, 4)
    keys = torch.from_numpy(draw_keys(1, "a", 0, 20_000))
    counts = next_tokens(scores, Sampling(1, temperature=1.0), keys, None).bincount(minlength=4).numpy()
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3]], [10_000, 5_000, 5_000]).pvalue > 0.01


def test_the_hash_is_that_of_splitmix64():
    """The first numbers of the generator with seed 1234567, as its reference implementation prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = uniforms(torch.tensor([1234567]), torch.tensor([[1, 2, 3]]))[0].tolist()
    assert found == [(number >> 11) * 2.0**-53 + 2.0**-54 for number in published]


def test_rounding_of_the_logits_hardly_ever_changes_a_draw():
    scores = torch.randn(4000, 500, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(4000, 500, generator=torch.Generator().manual_seed(2)) * 1e-6
    keys = torch.from_numpy(draw_keys(1, "a", 0, 4000))
    plain, other = (next_tokens(found, Sampling(1, temperature=1.0), keys, None) for found in (scores, scores + noise))
    assert torch.equal(plain, other)


def test_a_distribution_on_one_token_draws_it():
    scores = torch.full((1, VOCAB), -math.inf)
    scores[0, 7] = 3.0
    for sampling in (Sampling(1), Sampling(1, temperature=1.0), Sampling(1, temperature=1.0, top_k=5, top_p=0.5)):
        assert int(next_tokens(scores, sampling, torch.tensor([5]), None)) == 7


def test_random_numbers_depend_on_seed_key_and_sample_only():
    keys = draw_keys(1, "doc", 0, 8)
    assert keys.tolist() == draw_keys(1, "doc", 0, 20)[:8].tolist()
    others = [draw_keys(*given, 8) for given in ((2, "doc", 0), (1, "dog", 0), (1, "doc", 1), (1, "\ud800", 0))]
    assert len({tuple(drawn) for drawn in [keys, *others]}) == 5
    assert keys[:2].tolist() == PINNED  # another number changes every text


PINNED = [304381117590440835, 9018305472741189216]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; allowed: at least 1"),
        ({"temperature": -0.1}, "temperature is -0.1; allowed: 0 \\(greedy\\) or a finite number of at least 0.001"),
        ({"temperature": 1e-40}, "temperature is 1e-40"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1; allowed: 0"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed: above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty is 1e-40; allowed: 0.01 to 100"),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf"),
        ({"stop": ("\n", "")}, "the stop string '' cannot be used"),
        ({"stop": ("a\ufffd",)}, "the stop string 'a\ufffd' cannot be used"),
    ],
)
def test_values_outside_their_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**{"max_tokens": 1} | values)


@pytest.mark.parametrize("top_p", [0.5, 0.99])
@pytest.mark.parametrize("scale", [0.01, 1.0, 12.0])
def test_a_limit_looks_at_as_many_tokens_as_it_needs(top_p, scale):
    """In a vocabulary of 3,000: nearly all of them with a flat distribution, a few with a steep one."""
    scores = torch.randn(3, 3000, generator=torch.Generator().manual_seed(7)) * scale
    theirs = TopPLogitsWarper(top_p)(None, scores).double().softmax(-1)
    found = spread(scores, Sampling(1, temperature=1.0, top_p=top_p)).double()
    counts = (found > 0).sum(-1)
    assert (counts - (theirs > 0).sum(-1)).abs().max() <= 1  # float32 sums of thousands of terms differ at the border
    torch.testing.assert_close(found / found.sum(-1, keepdim=True), theirs, rtol=1e-3, atol=1e-3 / 3000)
    found, ids = weights(scores, Sampling(1, temperature=1.0, top_p=top_p))
    assert bool((ids.diff() > 0).all())


def test_more_equal_tokens_than_a_limit_are_all_kept():
    flat = torch.zeros(2, 3000)
    for sampling in (Sampling(1, temperature=1.0, top_k=5), Sampling(1, temperature=1.0, top_k=5, top_p=0.1)):
        found = spread(flat, sampling)
        assert found.shape == (2, 3000)
        assert found.unique().numel() == 1
