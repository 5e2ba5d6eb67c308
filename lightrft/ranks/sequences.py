"""What processes that share a sequence send each other, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from lightrft.ranks.base import World
from lightrft.ranks.meshes import sequence_group
from lightrft.ranks.pulse import PULSE


class SequenceRanks:
    """The `size` processes that hold the same rows as this one, and each the `rank`th part of every sequence.

    Every process makes the same calls in the same order, in the backward pass too.
    """

    def __init__(self, world: World) -> None:
        self.rank, self.size, self.device = world.sp_rank, world.sp_size, world.device
        self.group = sequence_group(world)

    def exchange(self, parts: Tensor) -> Tensor:
        """parts [size, ...], of which the i-th goes to process i, to [size, ...], of which the i-th came from there."""
        return _Exchange.apply(parts, self.group)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes. Each of them goes on to the same loss, so the gradient of the sum is that of
        the process's own values, and is not summed once more."""
        return _Total.apply(values, self.group)


class _Exchange(Function):
    """It is its own inverse, so gradients go back as values came."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        came = torch.empty_like(parts, memory_format=torch.contiguous_format)
        with PULSE.collective("exchange of sequences"):
            dist.all_to_all_single(came, parts.contiguous(), group=group)
        return came

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Exchange.apply(grads[0], ctx.group), None


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = values.clone()
        with PULSE.collective("total of sequences"):
            dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None
