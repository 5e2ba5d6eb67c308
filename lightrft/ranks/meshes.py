"""Processes as named axes."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightrft.ranks.base import World


def data_parallel_mesh(world: World) -> DeviceMesh:
    """The processes over which FSDP2 shards parameters and averages gradients."""
    return init_device_mesh(world.device.type, (world.dp_size,), mesh_dim_names=("dp",))
