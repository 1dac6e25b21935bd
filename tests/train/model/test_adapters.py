"""Adapters are added to the named modules, only they train, and merging keeps the trained model (case C046)."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.train.config import Lora, Model
from codex_ml.train.model.adapters import (
    add_adapters,
    is_adapted,
    match_targets,
    merge_and_verify,
    save_adapter,
    trainable_parameters,
)
from codex_ml.train.model.build import build_model


@pytest.fixture
def gpt2():
    """The model of case C046."""

    def gpt2(**shape):
        sizes = {"hidden_size": 32, "intermediate_size": 128, "layers": 2, "heads": 2, "max_positions": 64}
        model = Model(architecture="gpt2", **{**sizes, **shape})
        return build_model(model, vocab_size=97, end=0, pad=1, seed=1).eval()

    return gpt2


@pytest.fixture
def adapted():
    """A model with trained adapters: both matrices are random."""

    def adapted(model, *targets, **options):
        result = add_adapters(model, Lora(**{"rank": 4, "targets": targets, **options}), seed=3)
        torch.manual_seed(9)
        for name, parameter in trainable_parameters(result).items():
            if "magnitude" not in name:
                parameter.data.normal_(std=0.1)
        return result.eval()

    return adapted


def count(model):
    return sum(parameter.numel() for parameter in trainable_parameters(model).values())


@pytest.mark.parametrize(
    ("targets", "parameters", "modules"),
    [(("c_attn",), 1024, {"c_attn": 2}), (("c_attn", "c_proj", "c_fc"), 4096, {"c_attn": 2, "c_proj": 4, "c_fc": 2})],
)
def test_fused_layers_of_gpt2_get_rank_times_in_and_out(gpt2, caplog, targets, parameters, modules):
    with caplog.at_level(logging.INFO, "codex_ml"):
        model = add_adapters(gpt2(), Lora(rank=4, targets=targets), seed=1)
    assert count(model) == parameters
    total = 97 * 32 + 64 * 32 + 2 * (4 * 32 * 32 + 4 * 32 + 2 * 32 * 128 + 128 + 32 + 4 * 32) + 2 * 32
    assert [record.getMessage() for record in caplog.records] == [
        *(f"model: target {name} matches {number} modules" for name, number in modules.items()),
        f"model: adapters train {parameters:,} of {total + parameters:,} parameters "
        f"({100 * parameters / (total + parameters):.2f} %)",
    ]
    shapes = {tuple(p.shape) for name, p in trainable_parameters(model).items() if "c_attn" in name}
    assert shapes == {(4, 32), (96, 4)}  # (rank, in) and (out, rank), although the weight is stored (in, out)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("c_attn", "c_porj"), "c_porj matches no module; did you mean c_proj? The model has c_attn, c_fc, c_proj, lm_head, wpe, wte"),
        (("q_proj", "v_proj"), "q_proj matches no module; did you mean c_proj? The model has c_attn, c_fc, c_proj, lm_head, wpe, wte"),
        (("attn",), "attn matches no module; did you mean c_attn? The model has c_attn, c_fc, c_proj, lm_head, wpe, wte"),
        (("zzz",), "zzz matches no module; The model has c_attn, c_fc, c_proj, lm_head, wpe, wte"),
    ],
)  # fmt: skip
def test_a_target_that_matches_nothing_is_refused(gpt2, targets, message):
    with pytest.raises(UserError) as error:
        add_adapters(gpt2(), Lora(rank=4, targets=targets), seed=1)
    assert str(error.value) == f"model.lora.targets: {message}"


def test_layers_of_both_kinds_at_once_are_refused(gpt2):
    with pytest.raises(UserError, match=r"match the Conv1D layers of GPT-2, .* and other layers too"):
        add_adapters(gpt2(), Lora(rank=4, targets=("c_attn", "lm_head")), seed=1)


def test_all_linear_is_every_layer_but_the_head(gpt2, tiny):
    assert len(match_targets(gpt2(), ("all-linear",))) == 2 * 4
    assert len(match_targets(tiny(), ("all-linear",))) == 2 * 7
    assert not any("lm_head" in name or "embed" in name for name in match_targets(tiny(), ("all-linear",)))


def test_a_longer_end_of_a_name_matches_fewer_modules(gpt2):
    assert sorted(match_targets(gpt2(), ("mlp.c_proj",))) == [
        "transformer.h.0.mlp.c_proj",
        "transformer.h.1.mlp.c_proj",
    ]


def test_new_adapters_change_nothing_and_are_a_function_of_the_seed(tiny):
    ids = torch.arange(20)[None]
    made = []
    for seed in (3, 3, 4):
        torch.rand(seed)
        made.append(add_adapters(tiny(), Lora(rank=4, targets=("q_proj",)), seed=seed).eval())
    with torch.no_grad():
        assert torch.equal(made[0](ids).logits, tiny()(ids).logits)
    first, same, other = (trainable_parameters(model) for model in made)
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_only_adapters_train(tiny):
    plain = tiny()
    assert trainable_parameters(plain).keys() == dict(plain.named_parameters()).keys()
    assert not is_adapted(plain)
    model = add_adapters(plain, Lora(rank=4, targets=("q_proj",)), seed=1)
    assert is_adapted(model)
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable_parameters(model))
    assert count(model) == 2 * 4 * (32 + 32)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_scale_is_alpha_over_rank_or_its_root(tiny, adapted, rslora, scale):
    """W + scale B A, by hand."""
    model = adapted(tiny(), "q_proj", alpha=8, rslora=rslora)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + scale * b @ a).T, rtol=0, atol=1e-5)


CASES = [
    ("gpt2", ("c_attn",), {}),
    ("gpt2", ("c_attn", "c_proj", "c_fc"), {"rslora": True}),
    ("gpt2", ("all-linear",), {"dora": True}),
    ("gpt2", ("lm_head",), {}),
    ("gpt2", ("wte",), {}),
    ("llama", ("all-linear",), {"dropout": 0.1}),
    ("llama", ("q_proj", "lm_head"), {}),
    ("llama", ("embed_tokens",), {"dora": True}),
    ("qwen3", ("q_proj", "v_proj"), {}),
    ("gpt_neox", ("query_key_value", "lm_head"), {}),
]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "targets", "options"), CASES)
def test_adapter_and_merged_model_on_disk_both_are_the_trained_one(
    tiny, adapted, tmp_path, name, targets, options, tied
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = adapted(tiny(name, tie_embeddings=tied), *targets, **options)
    ids = torch.arange(2, 34).reshape(2, 16)
    with torch.no_grad():
        wanted = model(ids).logits
        assert float((wanted - tiny(name, tie_embeddings=tied)(ids).logits).abs().max()) > 1e-2
    save_adapter(model, tmp_path / "adapter")
    merge_and_verify(model, tmp_path)
    merged, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    peft = PeftModel.from_pretrained(tiny(name, tie_embeddings=tied), tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(peft(ids).logits, wanted, rtol=0, atol=1e-5)


def test_tied_matrix_is_stored_once_where_no_adapter_changes_it(gpt2, adapted, tmp_path):
    model = adapted(gpt2(), "c_attn")
    merged = merge_and_verify(model, tmp_path)
    assert merged.lm_head.weight is merged.transformer.wte.weight
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_adapter_folder_is_equal_bytes_each_time_and_holds_low_rank_matrices_only(tiny, adapted, tmp_path, tree):
    for name in ("one", "two"):
        save_adapter(adapted(tiny(), "v_proj", "q_proj", "lm_head"), tmp_path / name)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert sorted(tree(tmp_path / "one")) == ["adapter_config.json", "adapter_model.safetensors"]
    names = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 16, None)


def test_a_merge_that_went_wrong_fails_and_keeps_the_adapter(tiny, adapted, tmp_path, monkeypatch):
    model = adapted(tiny(), "q_proj")
    save_adapter(model, tmp_path / "adapter")
    from codex_ml.train.model import adapters

    def damaged(merged, folder):
        merged.save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] *= 1.001
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(adapters, "save_model", damaged)
    with pytest.raises(CheckFailed, match=r"^the merged model differs from the trained one: read back from"):
        merge_and_verify(model, tmp_path)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_a_merged_model_with_a_tensor_missing_fails(tiny, adapted, tmp_path, monkeypatch):
    from codex_ml.train.model import adapters

    def damaged(merged, folder):
        merged.save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(adapters, "save_model", damaged)
    with pytest.raises(CheckFailed, match=r"cannot be read back: .*1 missing tensors, such as model\.norm\.weight"):
        merge_and_verify(adapted(tiny(), "q_proj"), tmp_path)


@pytest.mark.parametrize(
    ("bias", "ends"),
    [
        ("none", set()),
        ("lora_only", {"c_attn.base_layer.bias"}),
        ("all", {"c_attn.base_layer.bias", "c_proj.bias", "c_fc.bias", "ln_1.bias", "ln_2.bias", "ln_f.bias"}),
    ],
)
def test_biases_train_as_the_key_says_and_come_back_from_disk(gpt2, adapted, tmp_path, bias, ends):
    from peft import PeftModel

    model = adapted(gpt2(), "c_attn", bias=bias)
    trained = {name for name in trainable_parameters(model) if "lora_" not in name}
    assert {".".join(name.split(".")[-3 if "base_layer" in name else -2 :]) for name in trained} == ends
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted = model(ids).logits
    save_adapter(model, tmp_path / "adapter")
    merged = merge_and_verify(model, tmp_path)
    again = PeftModel.from_pretrained(gpt2(), tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(merged(ids).logits, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_of_a_model_without_any_are_refused(tiny, bias):
    with pytest.raises(UserError, match=f"model.lora.bias {bias}: .* has no bias that could train; use none"):
        add_adapters(tiny(), Lora(rank=4, targets=("q_proj",), bias=bias), seed=1)
