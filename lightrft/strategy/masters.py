"""`--use_mp_opt`: FSDP2's shards in 16 bits, with float32 masters in the optimizer, which steps these.

What is gathered for a pass is the shards as they are. FSDP2 sums a micro-batch's gradient over ranks in float32 and
rounds it to the shard's dtype; micro-batches are added up in the masters' float32, so that no sum rounds. With
`--fsdp_reshard step` FSDP2 adds them up itself, in float32 too, and their sum is what it rounds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightrft.strategy.base import Handle


def take_masters(model: nn.Module, compute: torch.dtype) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """Masters by name, the float32 shards that were there; the model's are new ones in `compute`.

    And of what does not train, which nothing steps, the float32 shards of this rank in host memory, for the export.
    """
    named = dict(model.named_parameters())
    masters = {name: nn.Parameter(value.detach()) for name, value in named.items() if value.requires_grad}
    finer = {name: local(value).to("cpu", copy=True) for name, value in named.items() if name not in masters}
    model._apply(lambda value: value.to(compute) if isinstance(value, DTensor) else value)  # buffers stay
    for name, value in model.named_parameters():
        if name in masters:
            value.register_post_accumulate_grad_hook(_hand_over(masters[name]))
    return masters, finer


def _hand_over(master: nn.Parameter) -> Any:
    """FSDP2 calls it when a gradient has been reduced."""

    @torch.no_grad()
    def add(shard: Tensor) -> None:
        assert shard.grad is not None
        gradient, shard.grad = shard.grad.float(), None
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    return add


@torch.no_grad()
def round_masters(handle: Handle, *, all_of_them: bool = False) -> None:
    """The shards that are computed with, of the masters; all_of_them: and of what does not train, which a step leaves
    as it is."""
    held = {**handle.masters, **(handle.finer if handle.masters and all_of_them else {})}
    for name, value in handle.model.named_parameters():
        if name in held:
            local(value).copy_(local(held[name]))


def finest(handle: Handle, name: str, value: Tensor) -> Tensor:
    """The tensor of that name, sharded as `value` is, as finely as anybody holds it."""
    if name not in handle.finer:
        return handle.masters.get(name, value)
    assert isinstance(value, DTensor)
    shard = handle.finer[name].to(value.device)
    return DTensor.from_local(
        shard, value.device_mesh, value.placements, run_check=False, shape=value.shape, stride=value.stride()
    )


def local(value: Tensor) -> Tensor:
    """This rank's shard."""
    return value._local_tensor.detach() if isinstance(value, DTensor) else value.detach()
