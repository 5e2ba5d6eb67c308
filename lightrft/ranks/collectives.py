"""What ranks tell each other, over torch.distributed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lightrft.ranks.base import World
from lightrft.ranks.meshes import data_group
from lightrft.ranks.pulse import PULSE

OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}
T = TypeVar("T")


class Collectives:
    """`Ranks` where there are, or may be, several processes: those that hold rows of their own, or `everyone`.

    Where processes share sequences, each of them holds its data-parallel rank's rows, and sums them over the ranks
    with its own place in the sequence.
    """

    def __init__(self, world: World, *, everyone: bool = False) -> None:
        self.world = world
        self.rank, self.size = (world.rank, world.size) if everyone else (world.dp_rank, world.dp_size)
        self.group = None if everyone else data_group(world)

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]:
        """In one message for all values of one dtype: many small ones would each wait for every rank."""
        found: dict[str, Tensor] = {}
        for dtype in dict.fromkeys(value.dtype for value in values.values()):
            parts = {name: value.detach() for name, value in values.items() if value.dtype == dtype}
            message = torch.cat([value.flatten().to(self.world.device) for value in parts.values()])
            with PULSE.collective("reduce"):
                dist.all_reduce(message, op=OPERATIONS[op], group=self.group)
            pieces = message.split([value.numel() for value in parts.values()])
            found |= {name: piece.view_as(parts[name]) for name, piece in zip(parts, pieces, strict=True)}
        return {name: found[name].to(values[name].device) for name in values}

    def gather(self, items: list[Any]) -> list[Any]:
        return [item for part in self._gather(items, "gather") for item in part]

    def concatenate(self, values: Tensor) -> Tensor:
        """They travel padded to the longest."""
        sizes = self.gather([len(values)])
        padded = values.new_zeros(max(sizes))
        padded[: len(values)] = values.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        with PULSE.collective("concatenate"):
            dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def agree(self, asked: T | None) -> T | None:
        return next((answer for answer in self._gather(asked, "agree") if answer is not None), None)

    def exchange(self, items: Sequence[T], destinations: Sequence[int]) -> list[T]:
        letters: list[list[T]] = [[] for _ in range(self.size)]
        for item, destination in zip(items, destinations, strict=True):
            letters[destination].append(item)
        packed = [torch.frombuffer(bytearray(pickle.dumps(letter)), dtype=torch.uint8) for letter in letters]
        sent = torch.tensor([len(letter) for letter in packed])
        came = torch.empty_like(sent)
        with PULSE.collective("exchange"):
            dist.all_to_all_single(came, sent, group=self.group)
            arrived = torch.empty(int(came.sum()), dtype=torch.uint8)
            dist.all_to_all_single(arrived, torch.cat(packed), came.tolist(), sent.tolist(), group=self.group)
        parts = arrived.split(came.tolist())
        return [item for part in parts for item in pickle.loads(part.numpy().tobytes())]

    def _gather(self, item: T, name: str) -> list[T]:
        parts: list[Any] = [None] * self.size
        with PULSE.collective(name):
            dist.all_gather_object(parts, item, group=self.group)
        return parts
