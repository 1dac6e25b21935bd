"""Every id of the tokenizer has a row of the embedding before training starts (case C041)."""

from __future__ import annotations

import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model
from codex_ml.train.model.vocabulary import embedding_rows, fit_vocabulary


@pytest.fixture
def model():
    def model(rows, **shape):
        sizes = {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2, "max_positions": 32}
        return build_model(Model(**{**sizes, **shape}), vocab_size=rows, end=0, pad=1, seed=1)

    return model


def test_tokenizer_with_more_ids_than_rows_is_refused_naming_both(model):
    with pytest.raises(UserError, match=r"^the tokenizer has 103 tokens, but the model's embedding has 100 rows; use"):
        fit_vocabulary(model(100), 103)


@pytest.mark.parametrize("tokens", [100, 128])
def test_padded_vocabulary_is_accepted_and_stays(model, tokens):
    padded = model(128)
    fit_vocabulary(padded, tokens)
    assert embedding_rows(padded) == 128


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tokens", [50, 103])
def test_a_new_tokenizer_gets_exactly_its_rows_and_old_ones_stay(model, tied, tokens):
    resized, before = model(100, tie_embeddings=tied), model(100, tie_embeddings=tied)
    fit_vocabulary(resized, tokens, resize=True, seed=7)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        now, then = getattr(resized, get)().weight, getattr(before, get)().weight
        assert now.shape == (tokens, 16)
        assert torch.equal(now[:50], then[:50])
    assert resized.config.vocab_size == tokens
    assert (resized.get_input_embeddings().weight is resized.get_output_embeddings().weight) == tied
    assert resized(torch.tensor([[tokens - 1]])).logits.shape == (1, 1, tokens)


def test_added_rows_are_a_function_of_the_seed_and_as_large_as_the_others(model):
    rows = []
    for seed in (7, 7, 8):
        torch.rand(seed)
        resized = model(100)
        fit_vocabulary(resized, 4096, resize=True, seed=seed)
        rows.append(resized.get_input_embeddings().weight[100:].detach())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert float(rows[0].std()) == pytest.approx(0.02, rel=0.02)
