"""Processes as named axes: dp (who holds which rows) and sp (who shares a sequence)."""

from __future__ import annotations

from functools import cache

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightrft.ranks.base import World
from lightrft.ranks.launch import when_leaving

AXES = ("dp", "sp")


@cache
def training_mesh(world: World) -> DeviceMesh:
    """All processes, dp x sp. Every rank asks for it at the same place: it makes process groups."""
    when_leaving(training_mesh.cache_clear)
    return init_device_mesh(world.device.type, (world.dp_size, world.sp_size), mesh_dim_names=AXES)


def data_group(world: World) -> dist.ProcessGroup | None:
    """The processes that hold other rows than this one, and this one; None = all there are."""
    return None if world.sp_size == 1 else training_mesh(world).get_group("dp")


def sequence_group(world: World) -> dist.ProcessGroup | None:
    """The processes that share this one's sequences; None where it has them alone."""
    return None if world.sp_size == 1 else training_mesh(world).get_group("sp")


@cache
def sharding_mesh(world: World, size: int | None = None) -> DeviceMesh:
    """The processes over which FSDP2 shards parameters and averages gradients: all of them, in one dimension.

    size: neighbours that share one copy of the parameters; its copies are the first of two dimensions then.
    """
    when_leaving(sharding_mesh.cache_clear)
    if size is None or size == world.size:
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
    names = ("replicate", "shard")
    return init_device_mesh(world.device.type, (world.size // size, size), mesh_dim_names=names)
