"""Rows through an encoder-decoder against a T5 written by hand in NumPy, and through the loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.modeling.encoder_decoder import split_rows
from codex_ml.modeling.forward import row_logits
from codex_ml.modeling.rows import IGNORE
from codex_ml.train.checkpoint import load_newest
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

from .outcomes import assert_equal, run, stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")
END, START, VOCAB, LAYERS, HEADS = 0, 1, 64, 2, 2


def t5(*, dropout=0.0, attention="eager"):
    """Float64, with weights large enough that attention is far from uniform."""
    shape = Model(architecture="t5", hidden_size=16, intermediate_size=24, layers=LAYERS, heads=HEADS, dropout=dropout)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=START, seed=1, attention=attention).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and name != "shared.weight":
                parameter.mul_(3)
    return model


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def buckets(queries, keys, *, both_ways):
    """(queries, keys) bucket of each distance: exact up to half of them, then logarithmic up to 128 tokens."""
    found = np.zeros((queries, keys), dtype=int)
    for q in range(queries):
        for k in range(keys):
            count, distance = (16, abs(k - q)) if both_ways else (32, max(q - k, 0))
            exact = count // 2
            far = exact + int(np.log(max(distance, 1) / exact) / np.log(128 / exact) * exact)
            found[q, k] = distance if distance < exact else min(far, count - 1)
            found[q, k] += 16 if both_ways and k > q else 0
    return found


def reference_logprobs(model, read, predict):
    """(n,) log probabilities of the tokens `predict` after the encoder read `read`: Raffel et al. 2020, section 2.1."""
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    table = weights["shared.weight"]

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights[f"{name}.weight"]

    def attend(x, source, name, bias):
        q, k, v = (
            (inputs @ weights[f"{name}.{part}.weight"].T).reshape(len(inputs), HEADS, -1)
            for part, inputs in (("q", x), ("k", source), ("v", source))
        )
        mixed = np.einsum("hqk,khd->qhd", softmax(np.einsum("qhd,khd->hqk", q, k) + bias), v)
        return mixed.reshape(len(x), -1) @ weights[f"{name}.o.weight"].T

    def forward(x, name):
        gate, up = (x @ weights[f"{name}.wi_{n}.weight"].T for n in (0, 1))
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return (gelu * up) @ weights[f"{name}.wo.weight"].T

    def stack(ids, side, bias, encoded):
        distances = weights[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        bias = bias + distances[buckets(len(ids), len(ids), both_ways=side == "encoder")].transpose(2, 0, 1)
        x = table[ids]
        for number in range(LAYERS):
            layer = f"{side}.block.{number}.layer"
            inner = norm(x, f"{layer}.0.layer_norm")
            x = x + attend(inner, inner, f"{layer}.0.SelfAttention", bias)
            if encoded is not None:
                x = x + attend(norm(x, f"{layer}.1.layer_norm"), encoded, f"{layer}.1.EncDecAttention", 0)
            last = 1 if encoded is None else 2
            x = x + forward(norm(x, f"{layer}.{last}.layer_norm"), f"{layer}.{last}.DenseReluDense")
        return norm(x, f"{side}.final_layer_norm")

    future = np.triu(np.full((len(predict), len(predict)), -np.inf), 1)
    said = stack(np.array([START, *predict[:-1]]), "decoder", future, stack(np.array(read), "encoder", 0, None))
    logprobs = np.log(softmax(said @ table.T / np.sqrt(table.shape[1])))
    return logprobs[np.arange(len(predict)), predict]


def rows_of(*documents, seq_len=40):
    """A batch: (tokens, prompt) are the tokens after END, and how many of them have no loss; END follows them."""
    shape = (len(documents), seq_len)
    batch = {"input_ids": np.full(shape, 33), "labels": np.full(shape, IGNORE), "position_ids": np.zeros(shape, int)}
    for row, (tokens, prompt) in enumerate(documents):
        stream, n = np.array([END, *tokens, END]), len(tokens) + 1
        batch["input_ids"][row, :n], batch["labels"][row, prompt:n] = stream[:-1], stream[1 + prompt :]
        batch["position_ids"][row] = [*range(n), *range(seq_len - n)]
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def tokens_of(count, *, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).integers(2, VOCAB, size=count).tolist()


def halves_of(tokens, prompt):
    """(tokens that the encoder reads, tokens to predict) of a document, from the definition."""
    stream, n = [END, *tokens, END], len(tokens) + 1
    if prompt:
        return [(stream[: prompt + 1], stream[prompt + 1 :])]
    k = n // 2
    return [pair for pair in ((stream[:1], stream[1 : k + 1]), (stream[: k + 1], stream[k + 1 :])) if pair[1]]


DOCUMENTS = [(tokens_of(39), 0), (tokens_of(5), 0), (tokens_of(0), 0), (tokens_of(1), 0), (tokens_of(30), 22)]
DOCUMENTS += [(tokens_of(12), 1), (tokens_of(9), 9)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_batch_costs_what_the_halves_of_its_documents_cost_alone(attention):
    """Texts and records, full rows and one that is an END: no padding is seen, no loss is on it, no row sees another."""
    model = t5(attention=attention)
    pairs = [pair for document in DOCUMENTS for pair in halves_of(*document)]
    expected = -sum(reference_logprobs(model, read, predict).sum() for read, predict in pairs)
    with torch.no_grad():
        found = summed_loss(model, rows_of(*DOCUMENTS))
        alone = sum(float(summed_loss(model, rows_of(document))) for document in DOCUMENTS)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert alone == pytest.approx(expected, rel=1e-5)


def test_every_token_of_a_text_is_predicted_once_and_a_prompt_never():
    counts = [sum(len(predict) for _, predict in halves_of(*document)) for document in DOCUMENTS]
    assert counts == [len(tokens) + 1 - prompt for tokens, prompt in DOCUMENTS]
    assert counts == (rows_of(*DOCUMENTS)["labels"] != IGNORE).sum(-1).tolist()


def test_what_fills_a_row_costs_nothing():
    model, batch = t5(), rows_of(*DOCUMENTS)
    filler = (batch["position_ids"] == 0).cumsum(-1) > 1
    with torch.no_grad():
        found = [summed_loss(model, {**batch, "input_ids": batch["input_ids"].masked_fill(filler, n)}) for n in (5, 60)]
    assert torch.equal(*found)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_one_row_does_not_reach_another(changed):
    model, batch = t5(), rows_of(*DOCUMENTS[:2], DOCUMENTS[4])
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][changed] = (other["input_ids"][changed] + 29) % VOCAB
    there = batch["labels"] != IGNORE
    with torch.no_grad():
        before, after = row_logits(model, batch), row_logits(model, other)
    for row in range(3):
        same = torch.equal(before[row][there[row]], after[row][there[row]])
        assert same == (row != changed)


@settings(max_examples=60)
@given(lengths=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=6))
def test_halves_are_those_of_the_definition(lengths):
    documents = [(tokens_of(n, seed=row), min(prompt, n)) for row, (n, prompt) in enumerate(lengths)]
    batch = rows_of(*documents, seq_len=16)
    halves = split_rows(**batch, start=START)
    found = {}
    for read, mask, shifted in zip(halves.input_ids, halves.attention_mask, halves.decoder_input_ids, strict=True):
        assert int(shifted[0]) == START
        found[len(found)] = (read[mask == 1].tolist(), shifted[1:].tolist())
    wanted = [(row, *pair) for row, document in enumerate(documents) for pair in halves_of(*document)]
    assert len(found) == len(wanted)
    assert halves.input_ids.shape[1] == max(len(read) for _, read, _ in wanted)
    width = halves.decoder_input_ids.shape[1]
    assert width == max(len(predict) for *_, predict in wanted)
    for row, read, predict in wanted:
        at = int(halves.place[row, len(read) - 1])  # where the first target behind what was read is predicted
        assert at % width == 0
        assert found[at // width][0] == read
        assert found[at // width][1][: len(predict) - 1] == predict[:-1]
        places = halves.place[row, len(read) - 1 : len(read) - 1 + len(predict)]
        assert places.tolist() == list(range(at, at + len(predict)))


def test_rows_of_several_documents_are_no_rows_of_an_encoder_decoder(recipe):
    batch = recipe.packed((3, 3), seed=1).batch(np.arange(1))
    with pytest.raises(AssertionError, match="several documents"):
        summed_loss(t5(), {key: torch.from_numpy(value) for key, value in batch.items()})


def gradients(model, batch, parts):
    model.zero_grad()
    for part in torch.arange(len(batch["labels"])).chunk(parts):
        summed_loss(model, {key: value[part] for key, value in batch.items()}).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_gradients_of_parts_add_up_to_those_of_the_whole_and_checkpointing_changes_none():
    model, batch = t5(), rows_of(*DOCUMENTS)
    whole = gradients(model, batch, 1)
    parts = gradients(model, batch, 7)
    model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = gradients(model, batch, 1)
    for name, gradient in whole.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_micro_batches_of_any_size_are_one_step(recipe, tmp_path):
    found = []
    for size, accumulation in ((6, 1), (2, 3), (1, 6)):
        folder = tmp_path / str(size)
        settings = {"micro_batch_size": size, "accumulation": accumulation, "max_steps": 3, "checkpoint_every": 1}
        recipe.train(folder, model=t5(), layout="padded", **settings)
        found.append(load_newest(folder / "scratch").weights)
    for other in found[1:]:
        for name, weight in found[0].items():
            torch.testing.assert_close(other[name], weight, rtol=1e-6, atol=1e-8, msg=name)


def test_a_run_lowers_the_validation_loss_and_one_that_was_cut_ends_with_the_same_bytes(recipe, monkeypatch, tmp_path):
    settings = {"layout": "padded", "lr": 0.01, "warmup_steps": 0, "max_steps": 20, "micro_batch_size": 6}
    whole = run(recipe, monkeypatch, tmp_path / "whole", model=t5(dropout=0.1), **settings)
    stop_in_step(recipe, monkeypatch, tmp_path / "cut", 9, model=t5(dropout=0.1), **settings)
    cut = run(recipe, monkeypatch, tmp_path / "cut", model=t5(dropout=0.1), **settings)
    losses = [point["val/loss"] for point in whole.checkpoint.points() if "val/loss" in point]
    assert losses[-1] < losses[0] - 0.2
    assert list(cut.steps) == list(range(9, 20))
    assert_equal(cut, whole)
