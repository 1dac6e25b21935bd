"""Packed documents have the logits of documents alone, in every allowed architecture."""

from __future__ import annotations

import pytest
import torch

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.modeling.forward import packed_logits
from codex_ml.train.model.foreign import MODEL_TYPES
from codex_ml.train.model.probe import check_isolation

from .architectures import GPT, SHARED, SIZES, make


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_packed_rows_equal_their_documents_alone(kind, attention):
    """Two rows with different cuts and some documents of one token; the padding at the end is a document of its own."""
    model = make(kind, attention, **SIZES[kind])
    rows = [(7, 1, 1, 9, 6), (1, 12, 4, 7)]
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])
    ids = torch.randint(2, 64, positions.shape, generator=torch.Generator().manual_seed(5))
    ids[0, 18:] = 1
    with torch.no_grad():
        packed = packed_logits(model, ids, positions)
        for row, lengths in enumerate(rows):
            for found, document in zip(packed[row].split(lengths), ids[row].split(lengths), strict=True):
                alone = model(input_ids=document[None], use_cache=False).logits[0]
                torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    assert check_isolation(model) < 1e-5


def test_bloom_is_refused_because_it_takes_no_such_mask():
    with pytest.raises(UserError, match=r"^bloom cannot be trained on packed rows: it does not accept a document mask"):
        check_isolation(make("bloom", hidden_size=32, n_layer=2, n_head=2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_rows_of_an_encoder_decoder_equal_their_documents_alone(tiny, attention):
    assert check_isolation(tiny("t5", attention=attention)) < 1e-5


class SeesPadding:
    """An encoder-decoder that attends to the padding of a batch."""

    def __init__(self, model):
        self.model = model

    def __call__(self, *, attention_mask=None, **inputs):
        return self.model(**inputs)

    def __getattr__(self, name):
        return getattr(self.model, name)


def test_an_encoder_decoder_that_sees_padding_is_refused(tiny):
    with pytest.raises(UserError, match=r"^t5 leaks between the documents of a row: "):
        check_isolation(SeesPadding(tiny("t5")))


def test_an_encoder_that_nothing_reads_does_not_pass(tiny):
    model = tiny("t5")
    with torch.no_grad():
        for block in model.decoder.block:
            block.layer[1].EncDecAttention.o.weight.zero_()
    with pytest.raises(CheckFailed, match="cannot check whether documents of a row see each other"):
        check_isolation(model)


class Leaks:
    """A model whose call is replaced by `call`; all other attributes are the model's."""

    def __init__(self, model, call):
        self.model, self.call = model, call

    def __call__(self, input_ids, attention_mask=None, position_ids=None, **rest):
        return self.call(self.model, input_ids, attention_mask, position_ids)

    def __getattr__(self, name):
        return getattr(self.model, name)


LEAKS = {
    "ignores the mask": lambda model, ids, mask, positions: model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids)),
    "ignores positions": lambda model, ids, mask, positions: model(input_ids=ids, attention_mask=mask),
    "ignores both": lambda model, ids, mask, positions: model(input_ids=ids),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "leak"), [*(("gpt2", leak) for leak in LEAKS), ("llama", "ignores the mask"), ("llama", "ignores both")]
)
def test_a_leak_is_found_and_measured(kind, leak):
    with pytest.raises(
        UserError, match=rf"^{kind} leaks between the documents of a row: .* differ by \d\.\de[-+]\d\d from"
    ):
        check_isolation(Leaks(make(kind, **SIZES[kind]), LEAKS[leak]))


def test_relative_positions_need_no_restart():
    """Rotary attention depends on distances only, so positions that count along the row are not a leak within the mask."""
    assert check_isolation(Leaks(make("llama", **SHARED), LEAKS["ignores positions"])) < 1e-5


def test_a_probe_that_could_not_fail_does_not_pass():
    model = make("llama", **SHARED)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    with pytest.raises(CheckFailed, match="cannot check whether documents of a row see each other"):
        check_isolation(model)


def test_numbers_that_are_not_finite_do_not_pass():
    model = make("llama", **SHARED)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="differ by nan"):
        check_isolation(model)


@pytest.mark.parametrize("positions", [8, 9, 64])
def test_short_models_are_probed_within_their_positions(positions):
    assert check_isolation(make("gpt2", **{**GPT, "n_positions": positions})) < 1e-5


def test_probe_leaves_the_model_and_the_random_numbers_as_they_were():
    model = make("gpt2", **GPT).train()
    state = torch.get_rng_state()
    check_isolation(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_few_bits_are_compared_beside_other_documents():
    """They round differently in a call of a different shape; in a call of the same shape every bit must be equal."""
    model = make("llama", **SHARED)
    model.register_parameter("few_bits", torch.nn.Parameter(torch.zeros(1, dtype=torch.uint8), requires_grad=False))
    assert check_isolation(model) == 0.0
    with pytest.raises(UserError, match="leaks between the documents of a row"):
        check_isolation(Leaks(model, LEAKS["ignores the mask"]))


def test_one_row_that_changes_how_another_is_rounded_is_a_leak():
    """Like 8-bit layers that find large activations in the whole batch; measured with bitsandbytes' default."""
    model = make("llama", **SHARED)
    model.register_parameter("few_bits", torch.nn.Parameter(torch.zeros(1, dtype=torch.uint8), requires_grad=False))
    model.model.norm.register_forward_hook(lambda module, inputs, output: output * output.std())
    with pytest.raises(UserError, match="leaks between the documents of a row"):
        check_isolation(model)
