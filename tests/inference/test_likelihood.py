"""Likelihoods against a computation by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.inference import likelihood
from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.likelihood import BINS, Scoring, Window, bucket, score, score_windows
from codex_ml.inference.sampling import Sampling
from codex_ml.inference.targets import target_columns
from codex_ml.modeling.examples import Scorable
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model, parameter_count

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

SHAPE = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=32)
END, PAD, VOCAB = 0, 1, 40


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


def item(ids, scored=None, *, begin=END):
    """A document of these ids between BOS and END; all of it is scored, or what `scored` says."""
    tokens = np.array([begin, *ids, END])
    mask = np.arange(len(tokens)) > 0 if scored is None else np.array([False, *scored])
    return Scorable(tokens, mask, "", True)


def items(**options):
    return [item(ids, **options) for ids in documents()]


def alone(model, tokens):
    """Log-probabilities of the tokens after the first, in one pass of float64: (n - 1, vocab)."""
    with torch.no_grad():
        return model(torch.as_tensor(tokens)[None, :-1]).logits[0].double().log_softmax(-1).numpy()


def test_uniform_model_costs_ln_v_per_token_and_the_end_counts():
    scores = list(score(Uniform(), items(), Scoring(8, batch_size=3)))
    assert [one.tokens for one in scores] == [6, 9, 2, 21, 18]
    for one in scores:
        assert one.nll == pytest.approx(one.tokens * math.log(VOCAB), rel=1e-6)


@pytest.mark.parametrize("begin", [END, 7])
def test_scores_equal_a_forward_pass_a_window_at_a_time(model, begin):
    for one, found in zip(items(begin=begin), score(model, items(begin=begin), Scoring(8)), strict=True):
        nll, top1, top5, bins = 0.0, 0, 0, np.zeros((BINS, 3))
        for at in range(0, len(one.tokens) - 1, 8):
            window = one.tokens[at : at + 9]
            for logprobs, target in zip(alone(model, window), window[1:], strict=True):
                nll -= logprobs[target]
                rank = int((logprobs > logprobs[target]).sum())
                top1, top5 = top1 + (rank == 0), top5 + (rank < 5)
                confidence = math.exp(logprobs.max())
                bins[math.ceil(confidence * BINS) - 1] += [1, confidence, rank == 0]
        assert found.nll == pytest.approx(nll, rel=1e-5)
        assert (found.tokens, found.top1, found.top5) == (len(one.tokens) - 1, top1, top5)
        assert found.calibration == pytest.approx(bins, rel=1e-5)


def test_calibration_of_a_model_that_is_sure_and_half_right():
    """Token 5 has a probability of 0.7, so all predictions are in the bin from 0.6 to 0.7; the others tie."""

    class Sure(Uniform):
        def __call__(self, input_ids, use_cache):
            logits = torch.full((*input_ids.shape, VOCAB), math.log(0.3 / (VOCAB - 1)))
            logits[..., 5] = math.log(0.7)
            return SimpleNamespace(logits=logits)

    (found,) = score(Sure(), [item([5, 6, 5])], Scoring(8))
    assert (found.tokens, found.top1, found.top5) == (4, 2, 3)  # before 6 come 5 and, with equal logits, 0 to 4
    assert found.calibration[6] == pytest.approx([4, 2.8, 2])
    assert found.calibration.sum() == pytest.approx(8.8)


def test_logits_that_are_not_numbers_give_a_cost_that_is_not_a_number():
    """Whoever reads the score refuses it by its cost; nothing warns on the way."""

    class Broken(Uniform):
        def __call__(self, input_ids, use_cache):
            return SimpleNamespace(logits=torch.full((*input_ids.shape, VOCAB), math.nan))

    (found,) = score(Broken(), [item([5, 6])], Scoring(8))
    assert math.isnan(found.nll) and found.tokens == 3


@pytest.mark.parametrize("stride", [1, 3, 5, 8])
def test_a_stride_scores_each_target_once_with_the_context_it_promises(model, stride):
    """Against a loop over targets: the k-th after the first window is in the window that begins k // stride + 1 strides on."""
    for one, found in zip(items(), score(model, items(), Scoring(8, stride)), strict=True):
        nll = 0.0
        for target in range(1, len(one.tokens)):
            begin = 0 if target <= 8 else ((target - 9) // stride + 1) * stride
            assert target <= 8 or target - begin > 8 - stride
            nll -= alone(model, one.tokens[begin : target + 1])[-1][one.tokens[target]]
        assert found.tokens == len(one.tokens) - 1
        assert found.nll == pytest.approx(nll, rel=1e-5)


def test_a_stride_longer_than_a_window_is_refused():
    with pytest.raises(UserError, match=r"^evaluate\.stride 9 is not within a window of 8 tokens; use 1 to 8, or 0 "):
        Scoring(8, 9)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_neither_batch_nor_neighbours_nor_order_change_a_score(architecture, batch_size):
    shape = SHAPE.model_copy(update={"architecture": architecture})
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=5).eval()
    given = items()
    single = [next(iter(score(model, [one], Scoring(16, 4, batch_size=1)))) for one in given]
    order = np.random.Generator(np.random.PCG64(2)).permutation(3 * len(given)) % len(given)
    found = score(model, [given[number] for number in order], Scoring(16, 4, batch_size=batch_size))
    for number, one in zip(order, found, strict=True):
        assert one.nll == pytest.approx(single[number].nll, rel=1e-6)
        assert (one.top1, one.top5) == (single[number].top1, single[number].top5)


def test_only_what_counts_is_scored_and_nothing_scored_is_a_score_of_nothing(model):
    ids, mask = list(range(2, 22)), [False] * 12 + [True] * 9
    nothing = item([3] * 30, [False] * 31)
    first, found, last = score(model, [nothing, item(ids, mask), nothing], Scoring(8))
    stream, nll = [END, *ids, END], 0.0
    for at in (8, 16):
        window = np.array(stream[at : at + 9])
        logprobs = alone(model, window)
        nll -= sum(logprobs[i][t] for i, t in enumerate(window[1:]) if at + i + 1 > 12)
    assert found.nll == pytest.approx(nll, rel=1e-5)
    assert (found.tokens, first.tokens, first.nll, last.tokens) == (9, 0, 0.0, 0)


@pytest.mark.parametrize("prompt", [0, 1, 4])
def test_an_encoder_decoder_scores_every_token_once_from_what_was_before_it_in_its_half_and_what_was_read(prompt):
    """The first half of a window ends where the first scored target is, or in the middle if that is the first."""
    model = build_model(SHAPE.model_copy(update={"architecture": "t5"}), vocab_size=VOCAB, end=END, pad=PAD, seed=5)
    asked = [item(ids, np.arange(len(ids) + 1) >= prompt) for ids in documents() if len(ids) >= prompt]
    for one, found in zip(asked, score(model.eval(), asked, Scoring(8, batch_size=3)), strict=True):
        stream, nll = one.tokens.tolist(), 0.0
        for begin in range(0, len(stream) - 1, 8):
            window = stream[begin : begin + 9]
            middle = prompt if prompt and begin == 0 else (len(window) - 1) // 2
            for read, said in ((window[:1], window[1 : middle + 1]), (window[: middle + 1], window[middle + 1 :])):
                for at, token in enumerate(said if not prompt or begin or read is not window[:1] else ()):
                    if begin == 0 and len(read) == 1 and prompt:
                        continue  # the prompt
                    with torch.no_grad():
                        logits = model(
                            input_ids=torch.tensor([read]), decoder_input_ids=torch.tensor([[PAD, *said[:at]]])
                        ).logits
                    nll -= float(logits[0, -1].double().log_softmax(-1)[token])
        assert found.tokens == len(stream) - 1 - prompt
        assert found.nll == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_evaluation_scores_a_row_as_training_does(architecture):
    shape = SHAPE.model_copy(update={"architecture": architecture})
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=5).eval()
    (found,) = score(model, [item(range(2, 17))], Scoring(16, batch_size=2))
    stream = torch.tensor([[END, *range(2, 17), END]])
    row = {"input_ids": stream[:, :-1], "labels": stream[:, 1:], "position_ids": torch.arange(16)[None]}
    with torch.no_grad():
        assert found.nll == pytest.approx(float(summed_loss(model, row)), rel=1e-6)


def test_full_windows_go_through_one_compiled_shape_and_the_others_do_not(model, monkeypatch):
    """In place of the compiler, a function that notes the shapes; the scores are those of the plain forward pass."""
    shapes, plain = [], list(score(model, items(), Scoring(8, batch_size=3)))

    def compiled(function, *, dynamic):
        def run(inputs, labels):
            shapes.append(tuple(inputs.shape))
            return function(inputs, labels)

        assert dynamic is False
        return run

    monkeypatch.setattr(torch, "compile", compiled)
    found = list(score(model, items(), Scoring(8, batch_size=3, compile=True)))
    assert set(shapes) == {(3, 8)}
    for one, other in zip(plain, found, strict=True):
        assert other.nll == pytest.approx(one.nll, rel=1e-6)
        assert (other.tokens, other.top1, other.top5) == (one.tokens, one.top1, one.top5)
    shapes.clear()
    wide = list(score(model, items(), Scoring(32, batch_size=2, compile=True)))
    assert set(shapes) <= {(2, 32)} and [one.tokens for one in wide] == [6, 9, 2, 21, 18]


def test_bfloat16_is_autocast_and_results_are_float32(model):
    """Equal up to the rounding of bfloat16, 8 bits; equal bits would mean that nothing was cast."""
    exact, low = (list(score(model, items(), Scoring(8, precision=kind))) for kind in ("fp32", "bf16"))
    assert [one.nll for one in low] == pytest.approx([one.nll for one in exact], rel=2**-7)
    assert [one.nll for one in low] != [one.nll for one in exact]
    assert model.dtype == torch.float32


def test_a_pass_has_at_most_so_many_logits_and_short_windows_share_it(model, monkeypatch):
    """64 tokens per pass by the settings; with room for 32 rows of logits, 32 tokens, so 2 rows of 16."""
    shapes = []

    class Watched(Uniform):
        config = model.config

        def __call__(self, input_ids, use_cache):
            shapes.append(tuple(input_ids.shape))
            return super().__call__(input_ids, use_cache)

    few = [item([3] * 9) for _ in range(8)]
    list(score(Watched(), few, Scoring(32, batch_size=2)))
    monkeypatch.setattr(likelihood, "LOGITS", 32 * VOCAB)
    list(score(Watched(), few, Scoring(32, batch_size=2)))
    assert shapes == [(4, 16)] * 2 + [(2, 16)] * 4


def test_items_are_read_as_needed():
    """16 passes of 2 x 8 tokens are read ahead; a document of 5 targets counts as a row of 16."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield item([2, 3, 4, 5])

    scores = score(Uniform(), endless(), Scoring(8, batch_size=2))
    for _ in range(100):
        next(scores)
    assert read == 112  # 7 times 16


def test_widths_of_rows():
    assert [bucket(n, 200) for n in (1, 16, 17, 25, 33, 48, 49, 97, 129, 193, 200)] == [
        16, 16, 24, 32, 48, 48, 64, 128, 192, 200, 200
    ]  # fmt: skip
    assert all(bucket(n, 5000) < 1.5 * n for n in range(17, 5001))
    assert bucket(3, 8) == 8


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
    prompts = [Prompt([tokenizer.begin], "", sample) for sample in range(5)]
    sampling = Sampling(12, temperature=1.0)
    draw = [list(generate(small, tokenizer, prompts, sampling, seed=seed, batch_size=2)) for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]
    assert len(draw[0]) == 5
    assert not any("<|endoftext|>" in text.text or "<|pad|>" in text.text for text in draw[0])


def test_windows_of_unequal_length_keep_their_own_targets():
    tokens = (np.array([2, 3, 4]), np.array([5, 6]), np.arange(2, 11))
    windows = [Window(some, np.ones(len(some) - 1, dtype=bool)) for some in tokens]
    found = list(score_windows(Uniform(), windows, Scoring(8, batch_size=2)))
    assert [len(result.nll) for result in found] == [2, 1, 8]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_spread_is_that_of_the_log_probability_under_the_prediction(model, batch_size):
    """mean = sum of p ln p, variance = sum of p (ln p - mean)^2, over the vocabulary."""
    windows = [
        Window(np.concatenate([[END], ids]).astype(np.int64), np.ones(len(ids), dtype=bool)) for ids in documents()
    ]
    found = list(score_windows(model, windows, Scoring(20, batch_size=batch_size, spread=True)))
    plain = list(score_windows(model, windows, Scoring(20, batch_size=batch_size)))
    for window, targets, other in zip(windows, found, plain, strict=True):
        log_p = model(input_ids=torch.from_numpy(window.tokens[None, :-1])).logits[0].double().log_softmax(-1)
        mean = (log_p.exp() * log_p).sum(-1)
        deviation = (log_p.exp() * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
        assert targets.mean == pytest.approx(mean.detach().numpy(), abs=1e-5)
        assert targets.deviation == pytest.approx(deviation.detach().numpy(), abs=1e-5)
        assert targets.nll.tolist() == other.nll.tolist()
        assert other.mean is None
        assert other.deviation is None


def test_an_impossible_token_adds_nothing_to_the_spread():
    logits = torch.tensor([[[0.0, 0.0, -math.inf, -math.inf]]])
    mean, deviation = target_columns(logits, torch.tensor([[1]]), spread=True)[4:]
    assert mean.item() == pytest.approx(-math.log(2))
    assert deviation.item() == pytest.approx(0, abs=1e-6)
