"""A model folder loads as it was saved, or one line says what is wrong with it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.cli.param_rules import Model
from codex_ml.core.errors import UserError
from codex_ml.modeling.trained_model import load_model
from codex_ml.train.model.build import build_model

SHAPE = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(architecture) -> (model, its folder)."""
    made = {}

    def save(architecture):
        if architecture not in made:
            shape = SHAPE.model_copy(update={"architecture": architecture})
            model = build_model(shape, vocab_size=40, end=0, pad=1, seed=5).eval()
            folder = tmp_path_factory.mktemp(architecture) / "model"
            model.save_pretrained(folder)
            made[architecture] = model, folder
        return made[architecture]

    return save


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder that a test may damage."""
    shutil.copytree(saved("llama")[1], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_saved_model_loads_with_equal_logits(saved, architecture):
    model, place = saved(architecture)
    again = load_model(place)
    ids = {"input_ids": torch.arange(2, 12)[None]}
    if architecture == "t5":
        ids["decoder_input_ids"] = ids["input_ids"]
    with torch.no_grad():
        assert torch.equal(again(**ids).logits, model(**ids).logits)
    assert not again.training
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_attention_is_what_the_caller_sets(saved):
    assert load_model(saved("llama")[1]).config._attn_implementation == "eager"
    assert load_model(saved("llama")[1], attention="sdpa").config._attn_implementation == "sdpa"


def test_saved_model_with_damage_is_reported(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(UserError, match="is not a model that can be loaded"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"1 missing tensors, such as model\.norm\.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), r"1 unexpected tensors, such as extra"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}), "is not a model that can be loaded"),
    ],
)
def test_a_tensor_that_is_missing_left_over_or_of_another_shape_is_named(folder, change, told):
    """transformers would fill a missing tensor with random numbers, and evaluate would measure them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=told) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", json.dumps({"model_type": "nothing-known"}), json.dumps({"model_type": "bert"}), "{}"],
)
def test_settings_that_describe_no_language_model_are_one_line(folder, config):
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match="model") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_code_in_a_folder_is_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    assert type(load_model(folder)).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()
