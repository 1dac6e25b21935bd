"""The bound of near-verbatim mass against the mass itself, which is enumerated for a small vocabulary."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.inference.near_verbatim_beam import BeamSearch, near_verbatim_masses
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

VOCAB, PREFIX, LENGTH = 4, 2, 4
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 16, 100)


def sharp(seed: int) -> Any:
    """A model of four tokens with predictions that are far from uniform."""
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=32)
    model = build_model(shape, vocab_size=VOCAB, end=0, pad=1, seed=seed).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(8)
    return model


MODELS = [sharp(seed) for seed in (1, 2)]
WINDOWS = list(np.random.Generator(np.random.PCG64(0)).integers(0, VOCAB, (6, PREFIX + LENGTH)))


def mass(model: Any, window: np.ndarray, mismatches: int, ends: tuple[int, ...] = ()) -> float:
    """Enumerate all texts of LENGTH tokens that differ at no more than `mismatches` places, by another token than END."""
    total = 0.0
    for text in itertools.product(range(VOCAB), repeat=LENGTH):
        wrong = [token for token, true in zip(text, window[PREFIX:], strict=True) if token != true]
        if len(wrong) <= mismatches and not set(wrong) & set(ends):
            ids = torch.tensor([[*window[:PREFIX].tolist(), *text]])
            with torch.no_grad():
                log_p = model(input_ids=ids).logits[0].double().log_softmax(-1)
            total += math.exp(sum(float(log_p[PREFIX - 1 + place, token]) for place, token in enumerate(text)))
    return total


def bounds(model: Any, windows: list[np.ndarray], width: int, mismatches: int, **more: Any) -> list[float]:
    search = BeamSearch(PREFIX, mismatches, width, **{"negligible": 0, **more})
    return list(near_verbatim_masses(model, windows, search))


@pytest.mark.parametrize("model", MODELS, ids=["one", "two"])
@pytest.mark.parametrize("mismatches", [0, 1, 2])
def test_the_bound_is_never_above_the_mass_and_never_falls_with_the_width(model: Any, mismatches: int) -> None:
    exact = np.array([mass(model, window, mismatches) for window in WINDOWS])
    verbatim = np.array([mass(model, window, 0) for window in WINDOWS])
    before = verbatim
    for width in WIDTHS:
        found = np.array(bounds(model, WINDOWS, width, mismatches))
        assert (found <= exact * (1 + 1e-5)).all()
        assert (found >= before * (1 - 1e-5)).all()
        before = found
    assert before == pytest.approx(exact, rel=1e-5)  # the widest beam holds all texts
    if mismatches:
        assert (exact > 1.5 * verbatim).all()


def test_a_beam_of_one_gives_the_probability_of_the_text_and_of_its_last_token_changed() -> None:
    """Slot 0 is the verbatim path; the last step takes all extensions."""
    model, window = MODELS[0], WINDOWS[0]
    last = [np.array([*window[:-1], token]) for token in range(VOCAB)]
    assert bounds(model, [window], 1, 0)[0] == pytest.approx(mass(model, window, 0), rel=1e-5)
    assert bounds(model, [window], 1, 1)[0] == pytest.approx(sum(mass(model, text, 0) for text in last), rel=1e-5)


def test_a_token_that_ends_the_text_is_no_mismatch_but_can_be_a_match() -> None:
    for window in WINDOWS:
        exact = mass(MODELS[0], window, 1, ends=(0,))
        assert bounds(MODELS[0], [window], 100, 1, ends=(0,))[0] == pytest.approx(exact, rel=1e-5)
        assert exact < mass(MODELS[0], window, 1)
    assert any(0 in window[PREFIX:] for window in WINDOWS)


class Uniform:
    """A model to which all tokens are equally probable; it has no cache."""

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False)

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, self.vocabulary))

    __call__ = forward


def test_the_mass_of_a_uniform_model_is_a_count_of_texts() -> None:
    """Within one place of four there are 1 + 4 (V - 1) texts, each of probability V^-4."""
    found = bounds(Uniform(5), [np.zeros(PREFIX + LENGTH, dtype=np.int64)], 100, 1)
    assert found == pytest.approx([(1 + 4 * 4) / 5**4], rel=1e-6)


class Recites(Uniform):
    """A model that writes 2 3 4 5 6 7 8 9 whatever it has read, and each other token with probability 1e-6."""

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for place in range(input_ids.shape[1]):
            logits[:, place, place + 1] = math.log(1e6)
        return SimpleNamespace(logits=logits)

    __call__ = forward


@pytest.mark.parametrize("negligible", [0, 1e-6])
def test_a_text_with_changed_tokens_is_found_where_as_many_may_differ(negligible: float) -> None:
    """The model writes 2 ... 9 with a probability of nearly 1; the text has three other tokens."""
    text = np.array([0, 1, 2, 11, 4, 5, 11, 7, 8, 11])
    found = [bounds(Recites(12), [text], 8, mismatches, negligible=negligible)[0] for mismatches in (2, 3)]
    assert found[0] < 1e-5
    assert found[1] == pytest.approx(1, abs=1e-3)


def test_what_is_negligible_costs_the_bound_no_more_than_that_per_hypothesis() -> None:
    for width in (4, 16):
        whole = np.array(bounds(MODELS[1], WINDOWS, width, 2))
        cut = np.array(bounds(MODELS[1], WINDOWS, width, 2, negligible=1e-3))
        assert (cut <= whole + 1e-9).all()
        assert (whole - cut <= 1e-3 * width * LENGTH).all()
    assert bounds(Uniform(50), WINDOWS, 4, 1, negligible=0.1) == [0.0] * len(WINDOWS)


def test_windows_share_passes_and_their_order_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    together = bounds(MODELS[0], WINDOWS, 4, 1)
    assert bounds(MODELS[0], WINDOWS, 4, 1) == together
    assert bounds(MODELS[0], WINDOWS[::-1], 4, 1)[::-1] == pytest.approx(together, abs=1e-6)
    monkeypatch.setattr("codex_ml.inference.near_verbatim_beam.ROWS", 4)  # a window per pass
    assert bounds(MODELS[0], WINDOWS, 4, 1) == pytest.approx(together, abs=1e-6)


def test_a_search_without_windows_or_without_a_suffix() -> None:
    assert bounds(MODELS[0], [], 4, 1) == []
    with pytest.raises(ValueError, match="above the prefix"):
        bounds(MODELS[0], [WINDOWS[0][:PREFIX]], 4, 1)
    with pytest.raises(ValueError, match="one length"):
        bounds(MODELS[0], [WINDOWS[0], WINDOWS[1][:-1]], 4, 1)
