"""FSDP2's shards of a model: which of its parts are sharded on their own, over which processes, kept where."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from lightrft.errors import warn


def shard(
    model: nn.Module,
    mesh: DeviceMesh,
    compute: torch.dtype | None = None,
    *,
    on_host: bool = False,
    learns: bool = True,
) -> None:
    """Each part of the model, and what is left as its root, over a mesh of one dimension or of replicate x shard.

    compute: parameters are cast to it for a pass; gradients are averaged in float32. on_host: shards are kept in host
    memory. learns: the root stays whole from its forward to its backward pass, which comes at once.
    """
    # Some outputs of models that see are views; nobody writes into them, against which torch warns.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(\w+\) returned a view tensor", UserWarning)
    pinned = mesh.device_type == "cuda"
    offload = CPUOffloadPolicy(pin_memory=pinned) if on_host else OffloadPolicy()
    inner = MixedPrecisionPolicy(compute, torch.float32)
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=inner, offload_policy=offload)
    # output_dtype on the root only: on a block it would cast the residual stream up and down at every layer
    root = MixedPrecisionPolicy(compute, torch.float32, output_dtype=torch.float32)
    again = None if learns else True
    fully_shard(model, mesh=mesh, mp_policy=root, offload_policy=offload, reshard_after_forward=again)


def whole(value: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process of its mesh asks."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _blocks(model: nn.Module) -> list[nn.Module]:
    """What is sharded on its own, inner ones first: the layers that the model declares, or else its repeated ones."""
    names = set(getattr(model, "_no_split_modules", None) or [])
    declared = [module for module in model.modules() if type(module).__name__ in names]
    return declared[::-1] or _repeated(model)


def _repeated(model: nn.Module) -> list[nn.Module]:
    """The largest list of several modules of one class."""
    lists = [list(module) for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential))]
    alike = [blocks for blocks in lists if len(blocks) > 1 and len({type(block) for block in blocks}) == 1]
    found = max(alike, key=lambda blocks: sum(p.numel() for block in blocks for p in block.parameters()), default=[])
    if not found:
        what = f"--fsdp: {type(model).__name__} has no repeated layers, so it is gathered whole for every pass"
        warn(what)
    return found
