"""Who there is, and what is asked of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Where this process stands: `rank` of `size`, in a mesh of data-parallel x sequence-parallel ranks.

    Rank r is data-parallel rank r // sp_size and sequence-parallel rank r % sp_size: those that share a sequence are
    neighbours. All rows of one data-parallel rank are held by each of its sp_size processes.
    """

    rank: int
    size: int
    dp_rank: int
    dp_size: int
    sp_rank: int
    sp_size: int
    device: torch.device


def alone(device: torch.device) -> World:
    """One process, without a process group."""
    return World(rank=0, size=1, dp_rank=0, dp_size=1, sp_rank=0, sp_size=1, device=device)


class Ranks(Protocol):
    """What ranks tell each other. Every rank makes the same calls in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]: ...

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in rank order, on every rank."""
        ...

    def concatenate(self, values: Tensor) -> Tensor:
        """The values [N] of all ranks, in rank order, on every rank; N may differ."""
        ...

    def agree(self, asked: T | None) -> T | None:
        """What the first rank that asks for something asks for; None where none does. So all decide alike."""
        ...

    def exchange(self, items: Sequence[T], destinations: Sequence[int]) -> list[T]:
        """Sends each item to a rank; those that came, in the order of the ranks that sent them."""
        ...


class OneRank:
    """All rows are here."""

    rank, size = 0, 1

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]:
        return values

    def gather(self, items: list[Any]) -> list[Any]:
        return items

    def concatenate(self, values: Tensor) -> Tensor:
        return values

    def agree(self, asked: T | None) -> T | None:
        return asked

    def exchange(self, items: Sequence[T], destinations: Sequence[int]) -> list[T]:
        return list(items)


ONE_RANK = OneRank()
