"""Likelihoods against a computation by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.inference.generation import sample_texts
from codex_ml.inference.likelihood import (
    Window,
    bits_per_byte,
    score_documents,
    score_windows,
)
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model, parameter_count

SHAPE = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=32)
END, PAD, VOCAB = 0, 1, 40


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for each other at this size
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    return build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=5).eval()


class Uniform:
    """A model that finds every token equally likely."""

    device = "cpu"
    config = SimpleNamespace(is_encoder_decoder=False)

    def __call__(self, input_ids, use_cache):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCAB))


def documents():
    dice = np.random.Generator(np.random.PCG64(1))
    return [dice.integers(2, VOCAB, size=n).astype(np.uint32) for n in (5, 8, 1, 20, 17)]


def test_uniform_model_costs_ln_v_per_token_and_the_end_counts():
    scores = list(score_documents(Uniform(), documents(), end=END, length=8, batch_size=3))
    assert [score.tokens for score in scores] == [6, 9, 2, 21, 18]
    for score in scores:
        assert score.nll == pytest.approx(score.tokens * math.log(VOCAB), rel=1e-6)


@pytest.mark.parametrize("begin", [None, END, 7])
def test_scores_equal_a_forward_pass_a_window_at_a_time(model, begin):
    scores = score_documents(model, documents(), end=END, begin=begin, length=8, batch_size=4)
    for ids, score in zip(documents(), scores, strict=True):
        stream = torch.tensor([END if begin is None else begin, *ids.tolist(), END])
        nll, correct = 0.0, 0
        for at in range(0, len(stream) - 1, 8):
            window = stream[at : at + 9]
            with torch.no_grad():
                logprobs = model(window[None, :-1]).logits[0].double().log_softmax(-1)
            nll -= float(logprobs.gather(-1, window[1:, None]).sum())
            correct += int((logprobs.argmax(-1) == window[1:]).sum())
        assert score.nll == pytest.approx(nll, rel=1e-5)
        assert score.correct == correct


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batch_size_changes_last_bits_only(model, batch_size):
    one = list(score_documents(model, documents(), end=END, length=8, batch_size=5))
    other = list(score_documents(model, documents(), end=END, length=8, batch_size=batch_size))
    assert [s.nll for s in other] == pytest.approx([s.nll for s in one], rel=1e-5)


def test_an_encoder_decoder_scores_every_token_once_from_what_was_before_it_in_its_half_and_what_was_read():
    model = build_model(SHAPE.model_copy(update={"architecture": "t5"}), vocab_size=VOCAB, end=END, pad=PAD, seed=5)
    scores = score_documents(model.eval(), documents(), end=END, length=8, batch_size=3)
    for ids, score in zip(documents(), scores, strict=True):
        stream, nll = [END, *ids.tolist(), END], 0.0
        for begin in range(0, len(stream) - 1, 8):
            window = stream[begin : begin + 9]
            middle = (len(window) - 1) // 2
            for read, said in ((window[:1], window[1 : middle + 1]), (window[: middle + 1], window[middle + 1 :])):
                for at, token in enumerate(said):
                    with torch.no_grad():
                        logits = model(
                            input_ids=torch.tensor([read]), decoder_input_ids=torch.tensor([[PAD, *said[:at]]])
                        ).logits
                    nll -= float(logits[0, -1].double().log_softmax(-1)[token])
        assert score.tokens == len(ids) + 1
        assert score.nll == pytest.approx(nll, rel=1e-5)


def test_evaluation_scores_a_row_as_training_does():
    shape = SHAPE.model_copy(update={"architecture": "t5"})
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=5).eval()
    (score,) = score_documents(model, [np.arange(2, 17)], end=END, length=16, batch_size=2)
    stream = torch.tensor([[END, *range(2, 17), END]])
    row = {"input_ids": stream[:, :-1], "labels": stream[:, 1:], "position_ids": torch.arange(16)[None]}
    with torch.no_grad():
        assert score.nll == pytest.approx(float(summed_loss(model, row)), rel=1e-6)


def test_bits_per_byte_of_known_losses():
    """11.75 nats over 137 bytes, as in case C049, and one bit per byte by definition."""
    assert bits_per_byte(11.75, 137) == pytest.approx(0.123734794, abs=1e-9)
    assert bits_per_byte(math.log(2) * 10, 10) == pytest.approx(1.0)


def test_equal_seeds_give_equal_weights_and_special_tokens_must_exist(model):
    same = build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=5)
    other = build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.get_input_embeddings().weight, other.get_input_embeddings().weight)
    assert parameter_count(model) == 40 * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16  # embedding once, tied
    with pytest.raises(UserError, match="lie outside its 40 tokens"):
        build_model(SHAPE, vocab_size=VOCAB, end=END, pad=40, seed=5)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_samples_repeat_with_their_seed_and_end_at_end(tmp_path, architecture):
    train_tokenizer(lambda: ["some text to train on " * 20], Tokenizer(vocab_size=300), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    end, pad = tokenizer.end, tokenizer.pad
    shape = SHAPE.model_copy(update={"architecture": architecture})
    small = build_model(shape, vocab_size=tokenizer.vocab_size, end=end, pad=pad, seed=1).eval()
    draw = [sample_texts(small, tokenizer, count=5, tokens=12, batch_size=2, seed=seed) for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]
    assert len(draw[0]) == 5
    assert not any("<|endoftext|>" in text or "<|pad|>" in text for text in draw[0])


def test_windows_of_unequal_length_keep_their_own_targets():
    windows = [Window(tokens, middle=1) for tokens in (np.array([2, 3, 4]), np.array([5, 6]), np.arange(2, 11))]
    found = list(score_windows(Uniform(), windows, length=8, batch_size=2))
    assert [len(result.logprobs) for result in found] == [2, 1, 8]
