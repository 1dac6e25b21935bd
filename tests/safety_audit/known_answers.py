"""A model, a tokenizer and streams whose answers are known without training."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType, SimpleNamespace

import numpy as np
import torch

from codex_ml.inference.likelihood import Window
from codex_ml.modeling.rows import Rows
from codex_ml.safety_audit.audit_windows import draw_windows
from codex_ml.safety_audit.window_places import Candidates, WindowShape

END, PAD, VOCAB = 0, 1, 100


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
    table = np.array(pieces, dtype="<u8").reshape(-1, 2)
    return Rows(tokens, starts.astype("<u8"), seq_len, PAD, table, first, **more)


MEMBER, HELD_OUT = list(range(2, 50)), list(range(98, 50, -1))


def drawn(rows, *, length, prefix=2, inside=False, tokenizer=None, seed=1):
    shape = WindowShape(prefix, length, inside=inside)
    return list(draw_windows(Candidates.all_of(rows), tokenizer or Names(), shape, seed=seed))


def windows(rows, **how):
    """The tokens of the windows that are not trivial, sorted, and the number of those that are."""
    found = drawn(rows, **how)
    return sorted(w.window.tokens.tolist() for w in found if not w.trivial), sum(w.trivial for w in found)


def asked(*windows):
    """Windows of these tokens, each the start of a row that is twice as long."""
    return [Window(np.array(tokens), np.ones(len(tokens) - 1, dtype=bool), len(tokens) - 1) for tokens in windows]
