"""An engine for two ranks, which fails on the first of them in the middle of a sync whose tensors all ranks gather.

As a script under torchrun, `shared_engine.py OUT`, rank 0 writes what each rank heard, for an engine in parts and for
one that the first rank has.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from launch import run_rank
from torch import Tensor

from lightrft.errors import RunFailed
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world
from lightrft.ranks.together import together
from lightrft.rollouts.engines.base import EngineFailed
from lightrft.rollouts.engines.tp_group import EngineRanks, TPGroup
from lightrft.sync.weights import send


class Part:
    """Takes tensors; the first rank's fails at the second."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def update_weights(self, params, version) -> None:
        for index, _ in enumerate(params):
            if index == 1 and self.rank == 0:
                raise EngineFailed("its memory is full")


def params() -> Iterator[tuple[str, Tensor]]:
    """As where weights are sharded: each tensor takes all ranks."""
    for index in range(4):
        value = torch.ones(1)
        dist.all_reduce(value)
        yield f"p{index}", value


def main(out: str) -> None:
    world, heard = join_world(), {}
    everyone = Collectives(world, everyone=True)
    for kind, owners in {"in parts": (0, 1), "of the first rank": (0,)}.items():
        engine = Part(world.rank) if world.rank in owners else None
        group = TPGroup(engine, EngineRanks(world, 2), torch.float32)  # pyright: ignore[reportArgumentType]
        told = "nothing"
        try:
            with together(everyone):
                send(params(), group, 1)
        except RunFailed as failed:
            told = f"{type(failed).__name__}: {failed}"
        heard[kind] = everyone.gather([told])
    if world.rank == 0:
        torch.save(heard, out)


if __name__ == "__main__":
    run_rank(main)
