"""What ranks tell each other, over torch.distributed."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from lightrft.ranks.base import World

OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


class Collectives:
    """Sums and gathers over the data-parallel ranks: `Ranks` where there are, or may be, several processes."""

    def __init__(self, world: World) -> None:
        assert world.dp_size == world.size, "all ranks hold rows of their own"
        self.world = world

    @property
    def rank(self) -> int:
        return self.world.dp_rank

    @property
    def size(self) -> int:
        return self.world.dp_size

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]:
        """In one message for all values of one dtype: many small ones would each wait for every rank."""
        found: dict[str, Tensor] = {}
        for dtype in dict.fromkeys(value.dtype for value in values.values()):
            parts = {name: value.detach() for name, value in values.items() if value.dtype == dtype}
            message = torch.cat([value.flatten() for value in parts.values()])
            dist.all_reduce(message, op=OPERATIONS[op])
            pieces = message.split([value.numel() for value in parts.values()])
            found |= {name: piece.view_as(parts[name]) for name, piece in zip(parts, pieces, strict=True)}
        return {name: found[name] for name in values}

    def gather(self, items: list[Any]) -> list[Any]:
        parts: list[list[Any]] = [[] for _ in range(self.world.size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def concatenate(self, values: Tensor) -> Tensor:
        """They travel padded to the longest."""
        sizes = self.gather([len(values)])
        padded = values.new_zeros(max(sizes))
        padded[: len(values)] = values.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
