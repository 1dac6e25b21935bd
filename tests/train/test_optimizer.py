"""Which parameters Muon and AdamW update, at which rate, in every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.foreign import MODEL_TYPES
from codex_ml.train.optimizer import build_optimizer, parameter_kinds, rates_of, set_rates, state_names
from codex_ml.train.recipe import OptimizerPlan, optimizer_plan

from .model.architectures import SIZES, make

pytestmark = pytest.mark.usefixtures("one_thread")

SPLIT = "q_proj k_proj v_proj o_proj"
GATED = "gate_proj up_proj down_proj"
NORMS = "input_layernorm post_attention_layernorm norm"
GPT = "ln_1 ln_2 ln_f"
T5 = "q k v o wi_0 wi_1 wo"
# The modules whose weight is of each kind. Every bias is a vector. An output head that is not named is tied to the
# embedding of the tokens, so it is the same parameter.
TABLE = {
    #               embedding                                matrix                                         vector
    "llama":       ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",                            NORMS),
    "qwen2":       ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",                            NORMS),
    "qwen3":       ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",                            f"{NORMS} q_norm k_norm"),
    "mistral":     ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",                            NORMS),
    "gpt2":        ("wte wpe",                               "c_attn c_proj c_fc",                          GPT),
    "gpt_bigcode": ("wte wpe",                               "c_attn c_proj c_fc",                          GPT),
    "gpt_neox":    ("embed_in lm_head",                      "query_key_value dense dense_h_to_4h dense_4h_to_h",
                    "input_layernorm post_attention_layernorm final_layer_norm"),
    "codegen":     ("wte lm_head",                           "qkv_proj out_proj fc_in fc_out",              "ln_1 ln_f"),
    "starcoder2":  ("embed_tokens",                          f"{SPLIT} c_fc c_proj",                        NORMS),
    "phi":         ("embed_tokens lm_head",                  "q_proj k_proj v_proj dense fc1 fc2",
                    "input_layernorm final_layernorm"),
    "phi3":        ("embed_tokens lm_head",                  "qkv_proj o_proj gate_up_proj down_proj",      NORMS),
    "olmo2":       ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",
                    "post_attention_layernorm post_feedforward_layernorm norm q_norm k_norm"),
    "granite":     ("embed_tokens lm_head",                  f"{SPLIT} {GATED}",                            NORMS),
    "smollm3":     ("embed_tokens",                          f"{SPLIT} {GATED}",                            NORMS),
    "gemma":       ("embed_tokens",                          f"{SPLIT} {GATED}",                            NORMS),
    "t5":          ("shared relative_attention_bias",        T5,                                            "layer_norm final_layer_norm"),
}  # fmt: skip
KINDS = ("embedding", "matrix", "vector")


def build(architecture: str, **changes: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "max_positions": 64}
    model = Model(architecture=architecture, **{**sizes, **changes})
    return build_model(model, vocab_size=64, end=0, pad=1, seed=1, attention="eager")


def weights_of(kinds: dict[str, str], kind: str) -> set[str]:
    """Names of the modules that hold the weights of a kind: "model.layers.0.mlp.up_proj.weight" is "up_proj"."""
    return {name.split(".")[-2] for name, found in kinds.items() if found == kind and not name.endswith(".bias")}


def test_the_table_is_whole():
    assert set(TABLE) == {*MODEL_TYPES, "t5"} and len(MODEL_TYPES) == 15


@pytest.mark.parametrize("architecture", TABLE)
def test_every_weight_has_the_kind_of_the_table(architecture):
    model = build("t5") if architecture == "t5" else make(architecture, **SIZES[architecture])
    kinds = parameter_kinds(model)
    assert tuple(weights_of(kinds, kind) for kind in KINDS) == tuple(set(row.split()) for row in TABLE[architecture])
    assert {kind for name, kind in kinds.items() if name.endswith(".bias")} <= {"vector"}
    for optimizer, plan in ((name, OptimizerPlan(name, 1e-3, 8e-3)) for name in ("adamw", "muon")):
        grouped = grouped_names(model, build_optimizer(model, Train(), plan, precision="fp32"))
        assert sorted(grouped) == sorted(name for name, _ in model.named_parameters()), optimizer


def grouped_names(model: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """The name of each parameter of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_is_an_embedding_tied_or_not(architecture, tied):
    kinds = parameter_kinds(build(architecture, tie_embeddings=tied))
    assert ("lm_head.weight" in kinds) == (not tied)
    assert kinds.get("lm_head.weight", "embedding") == "embedding"


def test_fused_queries_keys_and_values_are_one_matrix_as_they_lie():
    """GPT-2's Conv1D stores (inputs, outputs), GPT-NeoX's Linear (outputs, inputs); Muon treats both alike."""
    for model, name, shape in (
        (build("gpt2"), "transformer.h.0.attn.c_attn.weight", (32, 96)),
        (build("gpt_neox"), "gpt_neox.layers.0.attention.query_key_value.weight", (96, 32)),
    ):
        assert dict(model.named_parameters())[name].shape == shape
        assert parameter_kinds(model)[name] == "matrix"


ODD = {"column": (4, 1), "row": (1, 4), "scalar": (), "filters": (4, 4, 3), "matrix": (2, 2)}


class Odd(torch.nn.Module):
    """Parameters of shapes that no architecture of the table has."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in ODD.items():
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape)))
        self.frozen = torch.nn.Parameter(torch.zeros(3, 3), requires_grad=False)

    def get_output_embeddings(self) -> None:
        return None


def test_only_two_sides_above_one_make_a_matrix_and_frozen_weights_have_no_kind():
    assert parameter_kinds(Odd()) == {name: "matrix" if name == "matrix" else "vector" for name in ODD}


def settings_by_name(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, dict[str, Any]]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], group


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_each_kind_has_its_rate_and_only_matrices_decay(name):
    model, train = build("qwen2", tie_embeddings=False), Train(weight_decay=0.3, momentum=0.7)
    optimizer = build_optimizer(model, train, OptimizerPlan(name, 0.01, 0.05), precision="fp32")
    kinds = parameter_kinds(model)
    for parameter, group in settings_by_name(model, optimizer):
        kind = kinds[parameter]
        assert group["peak"] == group["lr"] == (0.01 if kind == "matrix" else 0.05)
        assert group["weight_decay"] == (0.3 if kind == "matrix" else 0.0)
        assert group.get("momentum") == (0.7 if (name, kind) == ("muon", "matrix") else None)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_trained_model_has_one_rate_and_adamw(adapted):
    model = build("qwen2")
    if adapted:
        model = add_adapters(model, Lora(rank=2, targets=("q_proj",)), seed=1)
    plan = optimizer_plan(Model(path="models/base/x"), Train(lr=0.02))
    optimizer = build_optimizer(model, Train(lr=0.02, weight_decay=0.3), plan, precision="bf16")
    assert type(optimizer) is torch.optim.AdamW
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sorted(grouped_names(model, optimizer)) == sorted(trained)
    for name, group in settings_by_name(model, optimizer):
        assert group["lr"] == 0.02
        assert group["weight_decay"] == (0.3 if trained[name].ndim == 2 else 0.0)


@pytest.mark.parametrize("plan", [OptimizerPlan("adamw", 0.02), OptimizerPlan("adamw", 0.02, 0.02)])
def test_adamw_moves_weights_as_torch_does_with_one_rate_and_two_groups(plan):
    """To the last bit. With a rate for embeddings, these do not decay, so the comparison has no decay."""
    decay = 0.1 if plan.embedding_lr is None else 0.0
    ours, theirs = build("qwen2"), build("qwen2")
    mine = build_optimizer(ours, Train(weight_decay=decay, beta1=0.8, beta2=0.9), plan, precision="bf16")
    weights = list(theirs.parameters())
    matrices, vectors = [p for p in weights if p.ndim == 2], [p for p in weights if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    torchs = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9), eps=1e-8, fused=True)
    for step in range(3):
        for seed, pair in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            gradient = torch.randn(pair[0].shape, generator=torch.Generator().manual_seed(100 * step + seed))
            for parameter in pair:
                parameter.grad = gradient.clone()
        mine.step()
        torchs.step()
    assert all(
        torch.equal(found, expected) for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


@pytest.mark.parametrize(("hidden_size", "factor"), [(768, 1.0), (192, 2.0), (3072, 0.5)])
def test_rates_from_scratch_are_scaled_by_the_root_of_the_width(hidden_size, factor):
    model = Model(hidden_size=hidden_size, heads=4)
    plan = optimizer_plan(model, Train(lr=0.01, embedding_lr=0.04))
    assert (plan.lr, plan.embedding_lr) == (pytest.approx(0.01 * factor), pytest.approx(0.04 * factor))
    ratio = optimizer_plan(model, Train(lr=0.01)).embedding_lr / optimizer_plan(model, Train(lr=0.02)).embedding_lr
    assert ratio == pytest.approx(0.5)  # without a value of its own it follows lr


@pytest.mark.parametrize(
    ("path", "optimizer", "expected"),
    [("", "auto", "muon"), ("", "muon", "muon"), ("", "adamw", "adamw"), ("models/base/x", "auto", "adamw"), ("models/base/x", "adamw", "adamw")],
)  # fmt: skip
def test_auto_is_muon_from_scratch_and_adamw_for_a_trained_model(path, optimizer, expected):
    plan = optimizer_plan(Model(path=path), Train(optimizer=optimizer, lr=0.02))
    assert plan.name == expected
    assert (plan.embedding_lr is None) == bool(path)
    assert plan.lr == 0.02 or not path


def test_all_rates_follow_one_schedule_and_the_curves_show_them():
    model, train = build("llama"), Train(warmup_steps=4, max_steps=8)
    plan = OptimizerPlan("muon", 0.02, 0.4)
    optimizer = build_optimizer(model, train, plan, precision="fp32")
    set_rates(optimizer, 1, train)  # the second of four steps of warm-up
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.2}
    assert rates_of(plan, 1, train) == {"train/lr": 0.01, "train/embedding_lr": 0.2}
    assert rates_of(OptimizerPlan("adamw", 0.02), 1, train) == {"train/lr": 0.01}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_names_of_the_state_are_those_that_a_step_leaves(name):
    model = build("llama")
    optimizer = build_optimizer(model, Train(), OptimizerPlan(name, 0.01, 0.05), precision="fp32")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    left = {f"{name}/{key}" for name, parameter in model.named_parameters() for key in optimizer.state[parameter]}
    assert left == state_names(model, optimizer)
    assert any(entry.endswith("/momentum_buffer") for entry in left) == (name == "muon")


def test_newton_schulz_computes_in_bfloat16_where_the_run_does(monkeypatch):
    from codex_ml.train import muon

    seen: list[torch.dtype] = []
    monkeypatch.setattr(muon, "newton_schulz", lambda matrices: seen.append(matrices.dtype) or matrices)
    for precision, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float32)):
        model = build("llama")
        optimizer = build_optimizer(model, Train(), OptimizerPlan("muon", 0.01, 0.05), precision=precision)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert set(seen) == {expected}, precision
        seen.clear()
