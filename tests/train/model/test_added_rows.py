"""Rows of added pieces: each starts with the mean of its old rows, and trains also under LoRA."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CodeGenConfig, CodeGenForCausalLM

from codex_ml.core.errors import UserError
from codex_ml.modeling.pack_files import Packed
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.model.adapters import add_adapters, save_adapter, trainable_parameters
from codex_ml.train.model.describe import describe_model
from codex_ml.train.model.prepare import make_trainable, prepare_model, save_trained
from codex_ml.train.model.vocabulary import add_rows, embedding_rows

from .conftest import VOCAB

PIECES = [[2, 3], [4, 5, 6], [7, 7]]  # of the ids 64, 65, 66
NEW = range(VOCAB, VOCAB + len(PIECES))
TARGETS = {"llama": "q_proj", "qwen3": "q_proj", "gpt2": "c_attn", "gpt_neox": "query_key_value"}
ABOUT = {
    "dtype": "<u2", "seq_len": 32, "layout": "packed", "tokenizer_kind": "local", "vocab_size": VOCAB + 3,
    "begin": 0, "end": 0, "pad": 1, "loss_on": "completions", "streams": {}, "added_pieces": PIECES,
}  # fmt: skip


def heads(model):
    return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_new_rows_are_the_mean_of_the_old_ones_and_old_rows_stay(tiny, name, tied):
    model, before = tiny(name, tie_embeddings=tied), heads(tiny(name, tie_embeddings=tied))
    add_rows(model, VOCAB + 3, PIECES, seed=1)
    for now, old in zip(heads(model), before, strict=True):
        assert now.shape == (VOCAB + 3, 32)
        assert torch.equal(now[:VOCAB], old)
        mean = [(old[2] + old[3]) / 2, (old[4] + old[5] + old[6]) / 3, old[7]]
        torch.testing.assert_close(now[VOCAB:], torch.stack(mean))
    assert (heads(model)[0] is heads(model)[1]) == tied
    assert model.config.vocab_size == VOCAB + 3


def codegen():
    torch.manual_seed(0)
    config = CodeGenConfig(vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=2, n_positions=64, rotary_dim=8)
    model = CodeGenForCausalLM(config)
    model.lm_head.bias.data.normal_()
    return model


def test_the_bias_of_an_output_head_grows_too():
    model = codegen()
    old = model.lm_head.bias.detach().clone()
    add_rows(model, VOCAB + 3, PIECES, seed=1)
    assert torch.equal(model.lm_head.bias[:VOCAB], old)
    expected = torch.stack([(old[2] + old[3]) / 2, (old[4] + old[5] + old[6]) / 3, old[7]])
    torch.testing.assert_close(model.lm_head.bias[VOCAB:].detach(), expected)


def test_spare_rows_of_a_padded_vocabulary_are_used(tiny):
    model, old = tiny(), tiny().get_input_embeddings().weight
    add_rows(model, 60, PIECES, seed=1)  # ids 57 to 59
    assert embedding_rows(model) == VOCAB
    torch.testing.assert_close(model.get_input_embeddings().weight[57], (old[2] + old[3]) / 2)
    assert torch.equal(model.get_input_embeddings().weight[60:], old[60:])


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """prepare(base, lora, ...) -> (Model, the model that the loop trains), of a model folder below models/base."""
    monkeypatch.chdir(tmp_path)

    def prepare(base, lora=None, *, quantization="none", **about):
        base.save_pretrained("models/base/mine")
        settings = Model(path="models/base/mine", lora=lora or Lora(), quantization=quantization)
        packed = Packed(**{**ABOUT, **about})
        ready = prepare_model(
            settings, packed, attention="eager", seed=1, new_tokenizer=False, scratch=tmp_path / "scratch"
        )
        added = NEW if packed.added_pieces else ()
        return settings, make_trainable(ready, settings, Train(), seed=1, added=added)

    return prepare


def test_a_model_without_a_row_for_each_old_id_is_refused(prepare, tiny):
    with pytest.raises(UserError, match=r"^the tokenizer has 65 tokens, but the model's embedding has 64 rows"):
        prepare(tiny(), vocab_size=VOCAB + 4)


def step(model, ids=(64, 65, 66, 3, 4)):
    """Three steps of AdamW on one row; returns the trained parameters."""
    named = trainable_parameters(model)
    optimizer = torch.optim.AdamW(named.values(), lr=0.05)
    row = torch.tensor([ids])
    for _ in range(3):
        model(input_ids=row, labels=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return named


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox"])
def test_under_lora_exactly_the_new_rows_train_and_the_merged_model_has_them(prepare, tiny, tmp_path, name, tied):
    base = tiny(name, tie_embeddings=tied)
    settings, model = prepare(base, Lora(rank=2, targets=(TARGETS[name],)))
    rows = [name for name in trainable_parameters(model) if "trainable_tokens_delta" in name]
    assert len(rows) == 2 - tied
    start = [trainable_parameters(model)[name].detach().clone() for name in rows]
    torch.testing.assert_close(start[0][0], (heads(base)[0][2] + heads(base)[0][3]) / 2)
    trained = step(model)
    ends = [trained[name].detach().clone() for name in rows]
    assert all(not torch.equal(end[row], was[row]) for end, was in zip(ends, start, strict=True) for row in range(3))
    (tmp_path / "out").mkdir()
    save_trained(model, tmp_path / "out", settings, scratch=tmp_path)

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for weight, old, end in zip(heads(plain), heads(base), ends * (1 + tied), strict=True):
        assert torch.equal(weight[:VOCAB], old)
        assert torch.equal(weight[VOCAB:], end)
    assert (heads(plain)[0] is heads(plain)[1]) == tied


def test_the_adapter_holds_the_rows_and_peft_loads_it_on_a_base_with_as_many(prepare, tiny, tmp_path):
    from peft import PeftModel

    _, model = prepare(tiny(), Lora(rank=2, targets=("q_proj",)))
    step(model)
    for name in ("one", "two"):
        save_adapter(model, tmp_path / name)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert json.loads(files[0]["adapter_config.json"])["trainable_token_indices"] == {"model.embed_tokens": [*NEW]}
    tensors = load_file(tmp_path / "one/adapter_model.safetensors")
    assert [tensor.shape for name, tensor in tensors.items() if "tokens_delta" in name] == [(3, 32)]

    base = tiny()
    base.resize_token_embeddings(VOCAB + 3)
    ids = torch.tensor([[64, 3, 65, 66]])
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, tmp_path / "one").eval()(input_ids=ids).logits
        torch.testing.assert_close(found, model.eval()(input_ids=ids).logits, rtol=1e-5, atol=1e-6)


def test_the_description_of_the_model_counts_the_pieces_whose_rows_train(prepare, tiny):
    for about, more in (({}, {"added_pieces": 3}), ({"added_pieces": [], "vocab_size": VOCAB}, {})):
        settings, model = prepare(tiny(), Lora(rank=2, alpha=4, targets=("q_proj",)), **about)
        found = describe_model(model, settings).as_json()["lora"]
        adapters = 2 * 2 * (32 + 32)  # layers x rank x (in + out)
        rows = 3 * 32 if more else 0
        assert found == {"rank": 2, "alpha": 4.0, "modules": 2, "trained": adapters + rows, **more}


def test_without_added_pieces_an_adapter_trains_no_row(tiny):
    model = add_adapters(tiny(), Lora(rank=2, targets=("q_proj",)), seed=1)
    assert model.peft_config["default"].trainable_token_indices is None
    assert all("lora_" in name for name in trainable_parameters(model))


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_of_the_embedding_or_the_head_is_refused(tiny, target):
    with pytest.raises(
        UserError, match=rf"model\.lora\.targets: (model\.)?{target} cannot get an adapter, because token"
    ):
        add_adapters(tiny(tie_embeddings=False), Lora(rank=2, targets=("q_proj", target)), seed=1, added=NEW)


def test_a_head_with_a_bias_is_refused_under_lora_because_peft_would_leave_it_out(prepare):
    with pytest.raises(UserError, match=r"the output head, but that of codegen has a bias, which peft would leave out"):
        prepare(codegen(), Lora(rank=2, targets=("qkv_proj",)))
    assert embedding_rows(prepare(codegen())[1]) == VOCAB + 3  # all weights train


def test_quantized_weights_are_refused(prepare, tiny):
    with pytest.raises(
        UserError, match=re.escape("model.quantization 4bit cannot be combined with tokenizer.add_pieces")
    ):
        prepare(tiny(), Lora(rank=2, targets=("q_proj",)), quantization="4bit")


def test_the_number_of_pieces_is_logged(tiny, caplog):
    with caplog.at_level(logging.INFO, "codex_ml"):
        add_rows(tiny(), VOCAB, [], seed=1)
        assert caplog.text == ""
        add_rows(tiny(), VOCAB + 3, PIECES, seed=1)
    assert "model: 3 added pieces start with the mean of the rows of their old pieces" in caplog.text
