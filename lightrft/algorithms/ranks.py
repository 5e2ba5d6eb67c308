"""What the mathematics asks of other ranks: advantages are made of the whole rollout step, wherever its rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from lightrft.algorithms.functional import masked

if TYPE_CHECKING:
    from torch import Tensor


class Ranks(Protocol):
    """The part of a strategy that estimators see. Every rank makes the same calls in the same order."""

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]: ...

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in rank order, on every rank."""
        ...


class OneRank:
    """All rows are here."""

    def reduce(self, values: dict[str, Tensor], op: Literal["sum", "max"] = "sum") -> dict[str, Tensor]:
        return values

    def gather(self, items: list[Any]) -> list[Any]:
        return items


ONE_RANK = OneRank()


def total(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum of all values on all ranks, float64."""
    return ranks.reduce({"sum": values.double().sum()})["sum"]


def share(part: Tensor, whole: Tensor, ranks: Ranks) -> float:
    """sum(part) / sum(whole) over all ranks, both counts of something; 0 where there is nothing."""
    return float(total(part, ranks) / total(whole, ranks).clamp(min=1))


def mean(values: Tensor, ranks: Ranks) -> float:
    return share(values, values.new_ones(values.shape), ranks)


def constant(values: Tensor, mask: Tensor, ranks: Ranks) -> bool:
    """Whether all values where the mask is 1, on all ranks, are equal; also where there are none."""
    kept = values[mask == 1]
    ends = ranks.gather([(float(kept.min()), float(kept.max()))] if kept.numel() else [])
    return not ends or max(high for _, high in ends) <= min(low for low, _ in ends)


def moments(values: Tensor, mask: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean and population variance where the mask is 1, over all ranks; two passes, the same numbers everywhere."""
    count = total(mask, ranks).clamp(min=1)
    mean = total(masked(values.double(), mask), ranks) / count
    return mean, total(masked(values.double() - mean, mask).square(), ranks) / count
