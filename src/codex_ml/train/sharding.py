"""Split weights, gradients and optimizer state among the processes, with torch's fully_shard (FSDP2).

Each parameter becomes a DTensor, split along its first dimension. Each block is gathered when it is used. Checkpoints
hold whole tensors, so a run resumes with or without shards and with any number of processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def shard(model: Any, *, device: str, processes: int) -> None:
    """Shard a transformers model in place: each of its blocks, then the rest.

    Args:
        model: a transformers or PEFT model, on its device, with equal weights on all processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (processes,))
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks = set(base._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    # by default the last group stays gathered after a forward pass without gradients, so its parameters are not shards
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; return any other tensor unchanged. Collective: every process must call it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """Move `value` to the device of `like`, and shard it as `like` is. Collective when `like` is sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)


def local(tensor: Tensor) -> Tensor:
    """Return this process's rows of a sharded tensor; any other tensor unchanged."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(parts: Tensor, *, like: Tensor) -> Tensor:
    """Gather matrices of which each process has rows.

    Args:
        parts: (batch, own rows, columns), the rows of this process in each of `batch` matrices.
        like: one matrix (rows, columns), sharded or not.

    Returns:
        (batch, rows, columns), equal on all processes. Collective when `like` is sharded.
    """
    import torch
    from torch.distributed.tensor import DTensor, Shard

    if not isinstance(like, DTensor):
        return parts
    shape = torch.Size((len(parts), *like.shape))
    return DTensor.from_local(
        parts, like.device_mesh, [Shard(1)], run_check=False, shape=shape, stride=(shape[1] * shape[2], shape[2], 1)
    ).full_tensor()


def own_rows(matrices: Tensor, *, like: Tensor) -> Tensor:
    """Return the rows of whole matrices (batch, rows, columns) that this process holds of `like`."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    if not isinstance(like, DTensor):
        return matrices
    return distribute_tensor(matrices, like.device_mesh, [Shard(1)], src_data_rank=None).to_local()
