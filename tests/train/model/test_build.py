"""The model folder is what other tools expect: equal for equal seeds, loadable, without superfluous bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from codex_ml.core.errors import UserError
from codex_ml.core.yaml import read_yaml
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import ARCHITECTURES, Model
from codex_ml.train.model.build import build_model, parameter_count

SHAPE = Model(hidden_size=16, intermediate_size=24, layers=2, heads=2, max_positions=32)
PRESETS = Path(__file__).parents[3] / "models/presets.yaml"
TEXT = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def build():
    def build(*, vocab_size=64, end=0, pad=1, seed=1):
        return build_model(SHAPE, vocab_size=vocab_size, end=end, pad=pad, seed=seed).eval()

    return build


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before(build):
    first = build(seed=7)
    torch.rand(3)
    second, other = build(seed=7), build(seed=8)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == ("norm" in name), name


def test_parameters_are_counted_by_hand(build):
    embedding, attention, feed_forward, norms = 64 * 16, 4 * 16 * 16, 3 * 16 * 24, 2 * 16
    assert parameter_count(build()) == embedding + 2 * (attention + feed_forward + norms) + 16


@pytest.mark.shipped
def test_presets_have_the_number_of_parameters_that_their_comments_state():
    comment = r"^(\S+): +# ([0-9.]+) M parameters with a vocabulary of ([0-9,]+)$"
    stated = re.findall(comment, PRESETS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _, _ in stated] == ["small", "medium"]
    for name, millions, vocabulary in stated:
        with torch.device("meta"):
            shape, entries = Model(**read_yaml(PRESETS)[name]), int(vocabulary.replace(",", ""))
            model = build_model(shape, vocab_size=entries, end=0, pad=1, seed=1)
        assert f"{parameter_count(model) / 1e6:.1f}" == millions, name


@pytest.mark.shipped
def test_each_architecture_has_a_preset_that_can_be_built():
    shapes = {name: Model(**values) for name, values in read_yaml(PRESETS).items()}
    assert {shape.architecture for shape in shapes.values()} == set(ARCHITECTURES)
    for name, shape in shapes.items():
        with torch.device("meta"):
            model = build_model(shape.model_copy(update={"layers": 1}), vocab_size=300, end=0, pad=1, seed=1)
        assert model.config.model_type == shape.architecture, name


def test_weights_are_small_float32_normals(build):
    embedding = build(vocab_size=4096).get_input_embeddings().weight.detach()
    assert embedding.dtype == torch.float32
    assert float(embedding.mean()) == pytest.approx(0, abs=4 * 0.02 / 65536**0.5)  # four standard errors
    assert float(embedding.std()) == pytest.approx(0.02, abs=4 * 0.02 / (2 * 65536) ** 0.5)


@pytest.mark.parametrize(("end", "pad"), [(64, 1), (0, 64), (100, 100)])
def test_special_tokens_outside_the_vocabulary_are_refused(build, end, pad):
    with pytest.raises(UserError, match=f"special tokens {end} and {pad} lie outside its 64 tokens"):
        build(end=end, pad=pad)


def test_tied_embedding_is_saved_once(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
        sizes = sum(file.get_tensor(name).numel() for name in names)
    assert names == {name for name, _ in model.named_parameters()}
    assert "lm_head.weight" not in names
    assert sizes == parameter_count(model)


def test_saved_folder_has_no_code_and_is_equal_each_time(build, tmp_path):
    for name in ("one", "two"):
        build().save_pretrained(tmp_path / name)
    files = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()} == files
    assert set(files) == {"config.json", "generation_config.json", "model.safetensors"}
    config = json.loads(files["config.json"])
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 0, 1)


def test_auto_class_loads_it_with_equal_logits(build, tmp_path):
    from transformers import AutoModelForCausalLM

    model = build()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    tokens = torch.arange(2, 30).reshape(2, 14)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_text_generation_pipeline_works_offline(build, tmp_path, monkeypatch):
    """With our own tokenizer, the greedy text of transformers' pipeline equals that of a loop over argmax."""
    import huggingface_hub.constants
    from transformers import pipeline

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was opened"))
    train_tokenizer(lambda: [TEXT], Tokenizer(vocab_size=280), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    model = build(vocab_size=tokenizer.vocab_size)
    model.save_pretrained(tmp_path)

    generate = pipeline("text-generation", model=str(tmp_path), trust_remote_code=False)
    prompt = "def add(a"
    [found] = generate(prompt, max_new_tokens=6, do_sample=False)

    ids = tokenizer.encode(prompt).tolist()
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == model.config.eos_token_id:
            break
    assert found["generated_text"] == tokenizer.decode(ids)


DECODERS = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox")
D, F, V, P = 32, 48, 64, 64  # hidden and intermediate size, tokens, positions
GATED = 2 * (4 * D * D + 3 * D * F + 2 * D) + D  # two layers: attention, feed-forward, two norms; and the last norm
PARAMETERS = {
    "llama": V * D + GATED,
    "mistral": V * D + GATED,
    "qwen2": V * D + GATED + 2 * 3 * D,  # biases of queries, keys and values
    "qwen3": V * D + GATED + 2 * 2 * 16,  # norms of queries and keys over a head of 16
    "gpt2": (V + P) * D + 2 * (4 * D * D + 4 * D + 2 * D * F + F + D + 4 * D) + 2 * D,
    "gpt_neox": V * D + 2 * (4 * D * D + 4 * D + 2 * D * F + F + D + 4 * D) + 2 * D,
}


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_has_the_parameters_that_its_paper_counts(tiny, name):
    assert parameter_count(tiny(name)) == PARAMETERS[name]
    assert parameter_count(tiny(name, tie_embeddings=False)) == PARAMETERS[name] + V * D


@pytest.mark.parametrize("name", [*DECODERS, "t5"])
def test_every_architecture_is_a_function_of_its_seed(tiny, name):
    first, second, other = tiny(name, seed=3), tiny(name, seed=3), tiny(name, seed=4)
    weights = [dict(model.named_parameters()) for model in (first, second, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    assert {value.dtype for value in weights[0].values()} == {torch.float32}


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_saved_and_loaded_gives_equal_logits(tiny, tmp_path, name):
    from transformers import AutoModelForCausalLM

    model = tiny(name)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    tokens = torch.arange(2, 30).reshape(2, 14)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_queries_share_keys_and_values(tiny, name):
    saved = 2 * 2 * D * 16 + (2 * 2 * 16 if name == "qwen2" else 0)  # half of k and v in two layers, and their biases
    assert parameter_count(tiny(name, kv_heads=1)) == PARAMETERS[name] - saved


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "t5"])
def test_kv_heads_are_refused_where_every_head_has_its_own(tiny, name):
    with pytest.raises(UserError, match=f"model.kv_heads: {name} cannot share heads of keys and values; use 0"):
        tiny(name, kv_heads=1)


def test_a_quarter_head_that_has_no_pairs_is_refused(tiny):
    with pytest.raises(UserError, match="hidden_size 24 / heads 2 must be a multiple of 8"):
        tiny("gpt_neox", hidden_size=24)


@pytest.mark.parametrize("name", [*DECODERS, "t5"])
def test_dropout_is_zero_unless_asked_for_and_then_acts_in_training_only(tiny, name):
    ids = torch.arange(2, 30).reshape(2, 14)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if name == "t5" else {})
    with torch.no_grad():
        plain, dropping = tiny(name), tiny(name, dropout=0.5)
        assert torch.equal(plain.train()(**inputs).logits, plain.eval()(**inputs).logits)
        assert torch.equal(dropping(**inputs).logits, plain(**inputs).logits)
        assert not torch.equal(dropping.train()(**inputs).logits, plain(**inputs).logits)


def test_the_encoder_decoder_is_built_tied_and_only_so(tiny):
    model = tiny("t5")
    assert model.config.is_encoder_decoder
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with pytest.raises(UserError, match="t5 shares one matrix"):
        tiny("t5", tie_embeddings=False)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_the_one_asked_for(tiny, attention):
    assert tiny(attention=attention).config._attn_implementation == attention
