"""An adapter from disk is merged as peft merges it; what is not plain LoRA, or does not fit, is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.core.errors import UserError
from codex_ml.train.config import Lora, Model
from codex_ml.train.model.adapters import add_adapters, save_adapter, save_model, trainable_parameters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.local_adapter import base_of, load_adapted

IDS = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path):
    """Save a base model and a trained adapter of it; returns the logits of peft's model."""

    def save(architecture, *targets, **options):
        shape = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "max_positions": 64}
        model = build_model(Model(architecture=architecture, **shape), vocab_size=97, end=0, pad=1, seed=1).eval()
        (tmp_path / "base").mkdir()
        save_model(model, tmp_path / "base")
        model.name_or_path = "models/base/mine"
        adapted = add_adapters(model, Lora(rank=4, targets=targets, **options), seed=3).eval()
        torch.manual_seed(9)
        for parameter in trainable_parameters(adapted).values():
            parameter.data.normal_(std=0.1)
        save_adapter(adapted, tmp_path / "adapter")
        with torch.no_grad():
            return adapted(input_ids=IDS).logits

    return save


@pytest.fixture
def load(tmp_path):
    return lambda: load_adapted(
        tmp_path / "adapter", tmp_path / "base", attention="eager", scratch=tmp_path / "scratch"
    )


@pytest.mark.parametrize(
    ("architecture", "targets", "options"),
    [
        ("llama", ("all-linear",), {}),
        ("llama", ("q_proj", "lm_head"), {}),  # the head is tied to the embedding, which must stay
        ("qwen2", ("q_proj", "v_proj"), {"bias": "all"}),
        ("gpt2", ("c_attn", "c_proj"), {"bias": "lora_only"}),
        ("gpt2", ("c_fc",), {"rslora": True, "alpha": 3}),
    ],
)
def test_the_logits_are_those_of_peft(saved, load, tmp_path, architecture, targets, options):
    wanted = saved(architecture, *targets, **options)
    with torch.no_grad():
        found = load()(input_ids=IDS).logits
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert base_of(tmp_path / "adapter") == "models/base/mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is read; name the folder of the merged model instead"),
        ({"use_dora": True}, "'use_dora' is set, and this is not plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is set"),
        ({"alpha_pattern": {"q": 2}}, "'alpha_pattern' is set"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is set"),
        ({"a new method": {"of": "peft"}}, "'a new method' is set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base model"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'; expected a number above 0"),
        ({"lora_alpha": True}, "lora_alpha is 'True'; expected a number above 0"),
        ({"lora_alpha": 0}, "lora_alpha is '0'; expected a number above 0"),
    ],
)
def test_what_is_not_plain_lora_is_refused(saved, load, tmp_path, change, said):
    saved("llama", "q_proj")
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError) as caught:
        load()
    assert said in str(caught.value)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.pop(FIRST + "B.weight"), "the matrices A and B of model.layers.0.self_attn.q_proj are not a pair"),
        (lambda t: t.update({FIRST + "A.weight": torch.ones(4, 31)}), "is for a weight of (32, 31), and the base"),
        (lambda t: t.update({FIRST + "A.weight": torch.ones(9, 32)}), "q_proj are not a pair"),
        (lambda t: t.update({FIRST + "A.weight": torch.full((4, 32), torch.nan)}), "not finite"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(97, 32)}), "is not of plain LoRA"),
        (lambda t: t.update({"x.bias": torch.ones(3)}), "the base model has no bias x.bias of this shape"),
        (
            lambda t: t.update({f"base_model.model.x.lora_{n}.weight": torch.ones(4, 4) for n in "AB"}),
            "the base model has no module x; they do not belong together",
        ),
        (
            lambda t: t.update({f"base_model.model.model.norm.lora_{n}.weight": torch.ones(4, 4) for n in "AB"}),
            "the module model.norm is a LlamaRMSNorm, not a linear layer",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved, load, tmp_path, edit, said):
    saved("llama", "q_proj")
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    with pytest.raises(UserError) as caught:
        load()
    assert said in str(caught.value)


def test_files_that_can_hold_code_and_links_are_refused(saved, load, tmp_path):
    saved("llama", "q_proj")
    weights = tmp_path / "adapter/adapter_model.safetensors"
    for name, said in (("adapter_model.bin", "can run code"), ("code.py", "can run code")):
        (tmp_path / "adapter" / name).write_bytes(b"x")
        with pytest.raises(UserError, match=said):
            load()
        (tmp_path / "adapter" / name).unlink()
    weights.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is missing; an adapter is"):
        load()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a symbolic link"):
        load()
