"""Sums, means and moments over the rows of all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.algorithms.functional import masked
from lightrft.ranks.base import ONE_RANK as ONE_RANK
from lightrft.ranks.base import Ranks as Ranks

if TYPE_CHECKING:
    from torch import Tensor

INFINITY = float("inf")


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
    ends = ranks.reduce({"high": _largest(values, mask), "minus low": _largest(-values, mask)}, "max")
    return bool(ends["high"] <= -ends["minus low"])


def _largest(values: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is 1, float64; -infinity where there is none."""
    unmasked = values.double()[mask == 1]
    return unmasked.max() if len(unmasked) else unmasked.new_full((), -INFINITY)


def moments(values: Tensor, mask: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean and population variance where the mask is 1, over all ranks; two passes, the same numbers everywhere."""
    count = total(mask, ranks).clamp(min=1)
    mean = total(masked(values.double(), mask), ranks) / count
    return mean, total(masked(values.double() - mean, mask).square(), ranks) / count
