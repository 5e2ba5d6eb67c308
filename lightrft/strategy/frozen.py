"""A model that never learns: whole on each process, or sharded over some of them; on the device or in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightrft.ranks.base import World
from lightrft.strategy.base import Handle, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Frozen:
    """How such a model is held, under either strategy: by FSDP2, which gathers one layer at a time for a pass.

    shard_size: neighbours that share one copy. on_host: between the passes of a layer it is kept in host memory.
    """

    shard_size: int = 1
    on_host: bool = False

    def prepare(
        self, model: PreTrainedModel, world: World, compute: torch.dtype | None, weights: Weights | None = None
    ) -> Handle:
        """compute: the dtype of a pass; None = as the weights are. weights: as in `Strategy.prepare`."""
        from lightrft.ranks.meshes import sharding_mesh
        from lightrft.strategy.fsdp2_state import fill_empty
        from lightrft.strategy.sharding import shard

        if self.shard_size > 1 or self.on_host or compute is not None:
            mesh = sharding_mesh(world, self.shard_size)
            shard(model, mesh, compute, on_host=self.on_host, learns=False)
        if weights is not None:
            fill_empty(model, world, weights, torch.device("cpu") if self.on_host else world.device)
        return Handle(model, model)
