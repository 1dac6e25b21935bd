"""Weights, gradients and optimizer state in shares, one a process: torch's fully_shard (FSDP2).

A parameter is a DTensor then, split along its first dimension; each block is put together when it is used. What goes to
disk is whole, so a run goes on with or without shares and with any number of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def shard(model: Any, *, device: str, processes: int) -> None:
    """Split every block of a transformers model, then what is left of it, among the processes, in place.

    Args:
        model: a transformers or PEFT model, on the device, the same on all processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (processes,))
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks = set(base._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    # by default the last group stays whole after a forward pass without gradients, and what is read then is no share
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which each process has a share, or the tensor itself; all processes must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, or a share of it, where `like` is: on its device, and in shares where that is in shares."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)
