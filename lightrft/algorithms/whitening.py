"""Advantages of the whole rollout step brought to zero mean and unit variance, and clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.algorithms.functional import masked
from lightrft.algorithms.over_ranks import constant, moments, share
from lightrft.ranks.base import ONE_RANK, Ranks

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE_FLOOR = 1e-8


def whitened(advantages: Tensor, mask: Tensor, ranks: Ranks = ONE_RANK) -> Tensor:
    """(A - mean) / sqrt(max(var, 1e-8)) over the rollout step's trained tokens; population variance; 0 elsewhere.

    Equal ones give exactly 0: the mean of equal numbers need not equal them, and the rest would be blown up.
    """
    if constant(advantages, mask, ranks):
        return masked(advantages * 0, mask)
    mean, variance = moments(advantages, mask, ranks)
    centred = masked(advantages.double() - mean, mask)
    return (centred / variance.clamp(min=VARIANCE_FLOOR).sqrt()).to(advantages.dtype)


def clipped_advantages(advantages: Tensor, mask: Tensor, limit: float, ranks: Ranks = ONE_RANK) -> tuple[Tensor, float]:
    """Advantages within +-limit, and the share of trained tokens that were outside before."""
    outside = masked((advantages.abs() > limit).double(), mask)
    return advantages.clamp(-limit, limit), share(outside, mask, ranks)
