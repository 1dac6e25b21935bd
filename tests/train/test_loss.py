"""The loss of a packed batch against a Llama written by hand in NumPy, one document at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codex_ml.modeling.forward import document_mask
from codex_ml.train.loss import summed_loss

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = (7, 1, 12, 3, 0, 1, 20, 2, 9, 4, 1, 14, 8)  # one-token documents and an empty one
SEQ_LEN = 40  # 95 targets: two full rows and one of 15, the rest of which is filler
LAYERS, HEADS = 2, 2


@pytest.fixture
def model(recipe):
    """Float64, with weights large enough that attention and the predictions are far from uniform."""
    model = recipe.tiny_model(layers=LAYERS).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference_logprobs(model, tokens):
    """(n,) token ids of one document -> (n, vocab) float64: Touvron et al. 2023, with rotary positions from 0."""
    weights = {name.removeprefix("model."): p.detach().numpy() for name, p in model.named_parameters()}

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights[f"{name}.weight"]

    def rotate(x):  # (n, heads, size): the pairs are (i, i + size / 2)
        half = x.shape[-1] // 2
        angles = np.arange(len(x))[:, None] / 10_000 ** (np.arange(half) / half)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = weights["embed_tokens.weight"][tokens]
    future = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for layer in range(LAYERS):
        name = f"layers.{layer}"
        inner = norm(x, f"{name}.input_layernorm")
        q, k, v = (
            (inner @ weights[f"{name}.self_attn.{part}_proj.weight"].T).reshape(len(tokens), HEADS, -1)
            for part in "qkv"
        )
        scores = np.einsum("qhd,khd->hqk", rotate(q), rotate(k)) / np.sqrt(q.shape[-1]) + future
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(tokens), -1)
        x = x + mixed @ weights[f"{name}.self_attn.o_proj.weight"].T
        inner = norm(x, f"{name}.post_attention_layernorm")
        gate, up = (inner @ weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    return np.log(softmax(norm(x, "norm") @ weights["embed_tokens.weight"].T))


def segments(rows, row):
    """The pieces of documents in a row, as inputs and targets, cut from the stream by its END tokens."""
    piece = rows.tokens[row * SEQ_LEN : (row + 1) * SEQ_LEN + 1].astype(np.int64)
    inputs, targets = piece[:-1], piece[1:]
    cuts = [cut for cut in np.flatnonzero(inputs == 0) if cut > 0]
    return list(zip(np.split(inputs, cuts), np.split(targets, cuts), strict=True))


def as_tensors(batch):
    return {key: torch.from_numpy(value) for key, value in batch.items()}


@pytest.mark.parametrize("row", [0, 1, 2])
def test_packed_row_costs_what_its_documents_cost_alone(recipe, model, row):
    rows = recipe.packed(LENGTHS, seed=4, seq_len=SEQ_LEN)
    parts = segments(rows, row)
    expected = -sum(reference_logprobs(model, x)[np.arange(len(y)), y].sum() for x, y in parts)
    with torch.no_grad():
        found = summed_loss(model, as_tensors(rows.batch(np.array([row]))))
    assert len(parts) >= 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_batch_costs_the_sum_of_its_rows(recipe, model):
    rows = recipe.packed(LENGTHS, seed=4, seq_len=SEQ_LEN)
    parts = [part for row in range(len(rows)) for part in segments(rows, row)]
    expected = -sum(reference_logprobs(model, x)[np.arange(len(y)), y].sum() for x, y in parts)
    with torch.no_grad():
        found = summed_loss(model, as_tensors(rows.batch(np.arange(len(rows)))))
    assert sum(len(y) for _, y in parts) == sum(LENGTHS) + len(LENGTHS)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_tokens_of_one_document_do_not_reach_another(model, changed):
    """Three documents and a filler in a row: every bit of the others' logits stays."""
    positions = torch.tensor([[*range(7), 0, *range(9), *range(5)]])
    document = (positions == 0).cumsum(-1)[0] - 1
    dice = torch.Generator().manual_seed(5)
    tokens = torch.randint(2, 64, positions.shape, generator=dice)
    other = torch.where(document == changed, (tokens - 2 + 31) % 62 + 2, tokens)

    def logits(ids):
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=document_mask(positions), position_ids=positions).logits[0]

    before, after = logits(tokens), logits(other)
    assert torch.equal(before[document != changed], after[document != changed])
    assert not torch.equal(before[document == changed], after[document == changed])


def test_what_fills_the_last_row_costs_nothing(recipe, model):
    rows = recipe.packed(LENGTHS, seed=4, seq_len=SEQ_LEN)
    batch = as_tensors(rows.batch(np.array([2])))
    assert int((batch["labels"] >= 0).sum()) == 15
    filled = torch.where(torch.arange(SEQ_LEN) >= 15, 33, batch["input_ids"])
    with torch.no_grad():
        assert torch.equal(summed_loss(model, batch), summed_loss(model, {**batch, "input_ids": filled}))


def test_mask_by_hand():
    mask = document_mask(torch.tensor([[0, 1, 0, 0, 1]]))
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
    assert mask.shape == (1, 1, 5, 5)
    assert (mask[0, 0] == 0).int().tolist() == expected
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}
