"""The optimizer of a run: which parameters it updates how, and the rate of each kind.

A model from scratch has three kinds of parameters, because one rate does not fit all (docs/recipe.md):

    matrices     weights of hidden linear layers: Muon or AdamW, at `train.lr`, with weight decay
    embeddings   of tokens and positions, and the output head: AdamW, at `train.embedding_lr`
    vectors      norms, biases and everything else: AdamW, at `train.embedding_lr`

A model from a file, with or without adapters, trains all its weights with AdamW at `train.lr`. `optimizer_plan` (in
recipe) scales the rates of a model from scratch by its width.

Used by: run, step, checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_ml.train.config import Train
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.recipe import OptimizerPlan
from codex_ml.train.schedule import learning_rate

if TYPE_CHECKING:
    from torch import nn, optim


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """Return the kind of every trained parameter by name: "matrix", "embedding" or "vector".

    The weight of an embedding, and of the output head, is an embedding. Any other parameter of two dimensions is a
    matrix if both are above 1. The rest are vectors: norms, biases, [1, n] parameters, filters of convolutions.
    """
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is not None:
        embeddings.add(id(head.weight))

    def kind(parameter: nn.Parameter) -> str:
        if id(parameter) in embeddings:
            return "embedding"
        return "matrix" if parameter.ndim == 2 and min(parameter.shape) > 1 else "vector"

    return {name: kind(parameter) for name, parameter in trainable_parameters(model).items()}


def build_optimizer(model: nn.Module, train: Train, plan: OptimizerPlan, *, precision: str) -> optim.Optimizer:
    """Return the optimizer of a model with one parameter group per kind and rate.

    Each group has `peak`, its rate at the peak of the schedule.

    Args:
        precision: of the run; Newton-Schulz computes in bfloat16 where the run does.
    """
    import torch

    from codex_ml.train.muon import Muon

    groups = _groups(model, train, plan)
    betas = (train.beta1, train.beta2)
    if plan.name == "adamw":
        optimizer: optim.Optimizer = torch.optim.AdamW(groups, betas=betas, eps=1e-8, fused=True)
    else:
        optimizer = Muon(groups, betas=betas, dtype=torch.bfloat16 if precision == "bf16" else None)
    _start(optimizer)
    return optimizer


def _start(optimizer: optim.Optimizer) -> None:
    """Give each parameter the state from which its first update would start: zeros.

    So a checkpoint holds the state of every parameter, also before the first update or of one without a gradient.
    """
    import torch

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key in _state_keys(group):
                zero = torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter)
                optimizer.state[parameter][key] = zero


def _state_keys(group: dict[str, Any]) -> tuple[str, ...]:
    return ("momentum_buffer",) if "momentum" in group else ("step", "exp_avg", "exp_avg_sq")


def _groups(model: nn.Module, train: Train, plan: OptimizerPlan) -> list[dict[str, Any]]:
    named = trainable_parameters(model)
    if plan.embedding_lr is None:
        kinds = {name: "matrix" if parameter.ndim >= 2 else "vector" for name, parameter in named.items()}
        peaks = {"matrix": plan.lr, "vector": plan.lr}
    else:
        kinds = parameter_kinds(model)
        peaks = {"matrix": plan.lr, "embedding": plan.embedding_lr, "vector": plan.embedding_lr}
    groups = []
    for kind, peak in peaks.items():
        members = [parameter for name, parameter in named.items() if kinds[name] == kind]
        decay = train.weight_decay if kind == "matrix" else 0.0
        momentum = {"momentum": train.momentum} if kind == "matrix" and plan.name == "muon" else {}
        groups.append({"params": members, "lr": peak, "peak": peak, "weight_decay": decay, **momentum})
    return [group for group in groups if group["params"]]


def set_rates(optimizer: optim.Optimizer, step: int, train: Train) -> None:
    """Set the rate of each group for a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, group["peak"], train)


def rates_of(plan: OptimizerPlan, step: int, train: Train) -> dict[str, float]:
    """Return the rates of a step, as a point of the curves."""
    point = {"train/lr": learning_rate(step, plan.lr, train)}
    if plan.embedding_lr is not None:
        point["train/embedding_lr"] = learning_rate(step, plan.embedding_lr, train)
    return point


def state_names(model: nn.Module, optimizer: optim.Optimizer) -> set[str]:
    """Return the names of the tensors that the optimizer keeps, "parameter name/key"."""
    keys = {id(parameter): _state_keys(group) for group in optimizer.param_groups for parameter in group["params"]}
    named = trainable_parameters(model)
    return {f"{name}/{key}" for name, parameter in named.items() for key in keys[id(parameter)]}
