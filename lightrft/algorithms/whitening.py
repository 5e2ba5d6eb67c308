"""Advantages of the whole rollout step brought to zero mean and unit variance, and clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightrft.algorithms.functional import masked

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE_FLOOR = 1e-8
Sum = Callable[["Tensor"], "Tensor"]


def alone(values: Tensor) -> Tensor:
    """The sum over one rank."""
    return values


def whitened(advantages: Tensor, mask: Tensor, total: Sum = alone) -> Tensor:
    """(A - mean) / sqrt(max(var, 1e-8)) over all trained tokens of the rollout step; population variance; 0 elsewhere.

    total: sums a scalar over all ranks. Two passes, so that every rank gets the same numbers.
    """
    count = total(mask.double().sum()).clamp(min=1)
    mean = total(masked(advantages, mask).double().sum()) / count
    centred = masked(advantages.double() - mean, mask)
    variance = total(centred.square().sum()) / count
    return (centred / variance.clamp(min=VARIANCE_FLOOR).sqrt()).to(advantages.dtype)


def clipped_advantages(advantages: Tensor, mask: Tensor, limit: float, total: Sum = alone) -> tuple[Tensor, float]:
    """Advantages within +-limit, and the share of trained tokens that were outside before."""
    outside = masked((advantages.abs() > limit).double(), mask)
    share = total(outside.sum()) / total(mask.double().sum()).clamp(min=1)
    return advantages.clamp(-limit, limit), float(share)
