"""Who there is, and what is asked of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """Where this process stands: `rank` of `size`, in a mesh of data-parallel x sequence-parallel ranks."""

    rank: int
    size: int
    dp_rank: int
    dp_size: int
    sp_rank: int
    sp_size: int
    device: torch.device


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


class OneRank:
    """All rows are here."""

    rank, size = 0, 1

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]:
        return values

    def gather(self, items: list[Any]) -> list[Any]:
        return items

    def concatenate(self, values: Tensor) -> Tensor:
        return values


ONE_RANK = OneRank()
