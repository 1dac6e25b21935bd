"""Extraction with models whose answer is known without training: a table of successors, and one that knows nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.inference.likelihood import Window
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.train_files import Training
from codex_ml.safety_audit.extraction import Candidates, Extraction, choose_windows, extract, greedy_windows, seen_rows
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

END, PAD, VOCAB = 0, 1, 100


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads wait for each other at this size
    yield
    torch.set_num_threads(threads)


class Successors:
    """Always predicts the successor in a table, like a model that memorised a text of distinct tokens."""

    device = torch.device("cpu")
    config = SimpleNamespace(eos_token_id=END, is_encoder_decoder=False)

    def __init__(self, text):
        self.next = torch.zeros(VOCAB, dtype=torch.int64)
        self.next[torch.tensor(text[:-1])] = torch.tensor(text[1:])

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=torch.nn.functional.one_hot(self.next[input_ids], VOCAB).float())

    __call__ = forward


class Names:
    """A tokenizer that gives each token an incompressible name, except the tokens of a table of zeros."""

    begin, end, pad = END, END, PAD
    special = MappingProxyType({"END": END, "PAD": PAD})

    def __init__(self, zeros=()):
        self.zeros = set(zeros)

    def decode(self, ids):
        dice = np.random.Generator(np.random.PCG64(1))
        names = ["".join(chr(c) for c in dice.integers(33, 126, 8)) for _ in range(VOCAB)]
        return "".join("0x00, 0x00, " if token in self.zeros else names[token] for token in ids)


def packed(*documents, seq_len, **more):
    """Rows of one piece each, in the order of the documents."""
    parts = [np.array([END, *document]) for document in documents]
    starts = np.cumsum([0, *map(len, parts)])
    pieces = [
        (begin, min(seq_len, stop - begin)) for start, stop in pairwise(starts) for begin in range(start, stop, seq_len)
    ]
    tokens = np.concatenate([*parts, [END]]).astype("<u2")
    first = np.arange(len(pieces) + 1, dtype="<u8")
    return Rows(tokens, starts.astype("<u8"), seq_len, PAD, np.array(pieces, dtype="<u8"), first, **more)


MEMBER, HELD_OUT = list(range(2, 50)), list(range(98, 50, -1))


def windows(rows, *, length, prefix=2, count=99, tokenizer=None):
    found, trivial = choose_windows(
        Candidates(rows, np.arange(len(rows))),
        tokenizer or Names(),
        prefix=prefix,
        length=length,
        count=count,
        seed=1,
    )
    return sorted(window.tokens.tolist() for window in found), trivial


def asked(*windows):
    """Windows of these tokens, each the start of a row that is twice as long."""
    return [Window(np.array(tokens), np.ones(len(tokens) - 1, dtype=bool), len(tokens) - 1) for tokens in windows]


def test_memorised_text_is_extracted_and_other_text_is_not():
    model = Successors([END, *MEMBER, END])
    inside, _ = windows(packed(MEMBER, seq_len=8), length=8)
    outside, _ = windows(packed(HELD_OUT, seq_len=8), length=8)
    assert len(inside) == len(outside) == 6
    batches = {"prefix": 3, "batch_size": 4}
    assert extract(model, asked(*inside), **batches) == Extraction(6, 6, 1.0, 0)
    assert extract(model, asked(*outside), **batches) == Extraction(6, 0, 0.0, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_one_wrong_token_of_the_suffix_is_no_extraction_and_the_prefix_does_not_count(batch_size):
    model = Successors(list(range(2, 50)))
    tried = asked(
        [2, 3, 4, 5, 6, 7],
        [9, 20, 7, 8, 9, 10],  # the jumps are inside the prefix
        [2, 3, 4, 6, 7, 8],  # the first token of the suffix is another one
        [2, 3, 4, 5, 6, 8],  # the last one
    )
    found = extract(model, tried, prefix=3, trivial=2, batch_size=batch_size)
    assert found == Extraction(
        windows=4, extracted=2, token_share=pytest.approx((1 + 1 + 2 / 3 + 2 / 3) / 4), trivial=2
    )


def test_nothing_to_try_is_nothing_extracted():
    assert extract(Successors([2, 3]), [], prefix=3, trivial=5, batch_size=4) == Extraction(0, 0, 0.0, 5)
    assert greedy_windows(Successors([2, 3]), Names(), [], prefix=3, count=4) == []


def test_a_continuation_that_ends_a_turn_is_no_control_either():
    model = Successors([2, 3, 4, 5, 6])
    tried = asked([2, 3, 4, 5], [3, 4, 5, 6])
    assert len(greedy_windows(model, Names(), tried, prefix=2, count=4)) == 2
    model.config = SimpleNamespace(eos_token_id=[END, 6], is_encoder_decoder=False)
    assert [window.tokens.tolist() for window in greedy_windows(model, Names(), tried, prefix=2, count=4)] == [
        [2, 3, 4, 5]
    ]


def test_windows_are_starts_of_pieces_inside_one_document():
    """Inputs: [END 2..6] [7..11] of the first, [END 20 21 22] of the second, [END 30..34] [35 36] of the third."""
    rows = packed([*range(2, 12)], [20, 21, 22], [*range(30, 37)], seq_len=6)
    assert windows(rows, length=6) == ([[0, 2, 3, 4, 5, 6], [0, 30, 31, 32, 33, 34]], 0)
    fives = [[0, 2, 3, 4, 5], [0, 30, 31, 32, 33], [7, 8, 9, 10, 11]]
    assert windows(rows, length=5) == (fives, 0)
    assert windows(rows, length=4) == ([[0, 2, 3, 4], [0, 20, 21, 22], [0, 30, 31, 32], [7, 8, 9, 10]], 0)
    assert windows(rows, length=7) == ([], 0)  # longer than what the model ever saw at once


def test_every_piece_of_a_row_gives_a_window():
    rows = packed([2, 3, 4], [5, 6], [7, 8, 9, 10], seq_len=8)
    rows = replace(rows, first=np.array([0, 2, 3], dtype="<u8"))
    assert windows(rows, length=4) == ([[0, 2, 3, 4], [0, 7, 8, 9]], 0)
    assert windows(rows, length=3) == ([[0, 2, 3], [0, 5, 6], [0, 7, 8]], 0)
    assert len(windows(rows, length=3, count=2)[0]) == 2


def test_what_was_not_trained_cannot_have_been_learnt():
    """The second and the third token after END are a prompt: they may be in the prefix, not in the suffix."""
    mask = np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.uint8)
    rows = packed([5, 6, 7, 8, 9], seq_len=8, mask=mask)
    assert windows(rows, length=5, prefix=3) == ([[0, 5, 6, 7, 8]], 0)
    assert windows(rows, length=5, prefix=2) == ([], 0)


def test_canaries_are_not_members():
    rows = packed([5, 6, 7], [8, 9, 10], seq_len=8, canaries=(1,))
    assert windows(rows, length=4) == ([[0, 5, 6, 7]], 0)


def test_no_more_windows_than_requested_and_others_for_another_seed():
    rows = packed(MEMBER, seq_len=4)
    assert len(windows(rows, length=4, count=5)[0]) == 5
    draw = [
        choose_windows(Candidates(rows, np.arange(len(rows))), Names(), prefix=2, length=4, count=5, seed=seed)[0]
        for seed in (1, 1, 2)
    ]
    draw = [[window.tokens.tolist() for window in windows] for windows in draw]
    assert draw[0] == draw[1] != draw[2]


def trained(steps: int, *, rows: int, seed: int) -> Training:
    """What the audit reads of training.json."""
    return Training.model_construct(global_step=steps, rows_a_step=rows, seed=seed)


def test_trivial_windows_are_left_out_and_counted():
    rows = packed(MEMBER, seq_len=12)  # rows start with END, 13, 25, 37
    found, trivial = windows(rows, length=12, tokenizer=Names(zeros=range(13, 37)))
    assert [window[0] for window in found] == [END, 37]
    assert trivial == 2


def test_rows_that_were_seen_follow_the_order_of_training():
    """10 rows, 3 per step: two steps saw the first six of the epoch's order, four steps all of them."""
    order = np.random.Generator(np.random.PCG64([5, 0])).permutation(10)
    assert seen_rows(trained(2, rows=3, seed=5), 10).tolist() == sorted(order[:6].tolist())
    assert seen_rows(trained(3, rows=3, seed=5), 10).tolist() == sorted(order[:9].tolist())
    assert seen_rows(trained(4, rows=3, seed=5), 10).tolist() == list(range(10))


def test_own_greedy_text_is_extracted_whatever_the_model():
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=32)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(10)
    tried = asked(*(range(first, first + 12) for first in range(2, 60)))
    own = greedy_windows(model, Names(), tried, prefix=4, count=20)
    assert 0 < len(own) <= 20
    assert {len(window.tokens) for window in own} == {12}
    assert {tuple(window.tokens[:4]) for window in own} <= {tuple(window.tokens[:4]) for window in tried[:20]}
    assert extract(model, own, prefix=4, batch_size=8) == Extraction(len(own), len(own), 1.0, 0)


T5 = Model(architecture="t5", hidden_size=32, intermediate_size=48, layers=1, heads=2)


@pytest.mark.parametrize("prefix", [1, 4])
def test_own_greedy_text_of_an_encoder_decoder_is_extracted_and_one_other_token_is_not(prefix):
    model = build_model(T5, vocab_size=VOCAB, end=END, pad=PAD, seed=3).eval()
    tried = asked(*(range(first, first + 12) for first in range(2, 72, 10)))
    own = greedy_windows(model, Names(), tried, prefix=prefix, count=5)
    assert own
    assert {len(window.tokens) for window in own} == {12}
    assert {tuple(window.tokens[:prefix]) for window in own} <= {tuple(window.tokens[:prefix]) for window in tried[:5]}
    assert extract(model, own, prefix=prefix, batch_size=3) == Extraction(len(own), len(own), 1.0, 0)
    for place in (prefix, 11):
        other = [replace(window, tokens=window.tokens.copy()) for window in own]
        for window in other:
            window.tokens[place] = 2 + (window.tokens[place] + 31) % (VOCAB - 2)
        assert extract(model, other, prefix=prefix, batch_size=3).extracted == 0


def test_halves_of_a_window_are_those_of_its_row():
    """A text of 6 targets has 3 in its first half; a record whose first trained target is the third has 2."""

    def middles(mask, length, prefix):
        rows = packed([5, 6, 7, 8, 9], seq_len=8, mask=mask and np.array(mask, dtype=np.uint8))
        found, _ = choose_windows(
            Candidates(rows, np.arange(1)), Names(), prefix=prefix, length=length, count=9, seed=1
        )
        return [window.middle for window in found]

    assert [middles(None, length, 2) for length in (3, 4, 5, 6)] == [[2], [3], [3], [3]]
    assert middles([0, 0, 0, 1, 1, 1, 1], 6, 3) == [2]


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
            extract(
                model,
                choose_windows(Candidates(rows, np.arange(6)), Names(), prefix=prefix, length=length, count=6, seed=1)[
                    0
                ],
                prefix=prefix,
                batch_size=4,
            )
            for rows in (known, unknown)
        ]
        assert [result.extracted for result in found] == [6, 0]


def test_greedy_text_that_would_have_ended_is_no_control():
    """All logits of this model are equal, so the first token, END, is the most probable one: generation is held from it.

    Such a window cannot be extracted, and would make a valid audit invalid.
    """
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=32)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    own = greedy_windows(model, Names(), asked(range(2, 14), range(20, 32)), prefix=4, count=20)
    found = extract(model, own, prefix=4, batch_size=8)
    assert found.extracted == found.windows
