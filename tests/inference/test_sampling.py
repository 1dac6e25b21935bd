"""The distribution that a token is drawn from is that of transformers' logits processors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from codex_ml.core.errors import UserError
from codex_ml.inference.sampling import Sampling, next_tokens, uniforms, weights

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
    found = spread(torch.log_softmax(theirs, -1), Sampling(1, temperature=1.0))
    cumulative = found.cumsum(-1)
    numbers = torch.from_numpy(np.random.Generator(np.random.PCG64(1)).random((30, 2)))
    for draw in numbers:
        expected = torch.searchsorted(cumulative, (draw * cumulative[:, -1]).long()[:, None], right=True)[:, 0]
        drawn = next_tokens(logits(2), Sampling(1, temperature=1.0, repetition_penalty=penalty), draw, seen)
        assert torch.equal(drawn, expected)
    greedy = next_tokens(logits(2), Sampling(1, repetition_penalty=penalty), numbers[0], seen)
    assert torch.equal(greedy, theirs.argmax(-1))


def test_a_number_draws_the_token_at_its_place_of_the_cumulative_distribution():
    """Probabilities 1/2, 0, 1/4, 1/4: a token of probability 0 is never drawn, also at a border."""
    scores = torch.tensor([[math.log(2), -math.inf, 0.0, 0.0]])
    numbers = [0.0, 0.25, 0.4999, 0.5, 0.7499, 0.75, 1 - 2**-53]
    drawn = [
        int(next_tokens(scores, Sampling(1, temperature=1.0), torch.tensor([number], dtype=torch.float64), None))
        for number in numbers
    ]
    assert drawn == [0, 0, 0, 2, 2, 3, 3]


def test_a_distribution_on_one_token_draws_it():
    scores = torch.full((1, VOCAB), -math.inf)
    scores[0, 7] = 3.0
    for sampling in (Sampling(1), Sampling(1, temperature=1.0), Sampling(1, temperature=1.0, top_k=5, top_p=0.5)):
        assert int(next_tokens(scores, sampling, torch.tensor([0.999], dtype=torch.float64), None)) == 7


def test_random_numbers_depend_on_seed_key_and_sample_only():
    numbers = uniforms(1, "doc", 0, 8)
    assert numbers.tolist() == uniforms(1, "doc", 0, 20)[:8].tolist()
    assert ((numbers >= 0) & (numbers < 1)).all()
    others = [uniforms(2, "doc", 0, 8), uniforms(1, "dog", 0, 8), uniforms(1, "doc", 1, 8), uniforms(1, "\ud800", 0, 8)]
    assert len({tuple(drawn) for drawn in [numbers, *others]}) == 5
    # pinned: another number changes every text
    assert numbers[:2].tolist() == PINNED


PINNED = [0.03300106689551208, 0.9777666385683911]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; allowed: at least 1"),
        ({"temperature": -0.1}, "temperature is -0.1; allowed: 0 \\(greedy\\) or a finite positive number"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1; allowed: 0"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed: above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
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
