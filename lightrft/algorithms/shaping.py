"""What happens to raw rewards before an estimator sees them, in this order (algorithms S7.1):

    overlong punishment -> running normalisation -> clip

each on the whole rollout step. A non-finite reward stays as it is: its sample is invalid and enters nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def overlong_penalty(lengths: Tensor, max_new_tokens: int, buffer: int, factor: float) -> Tensor:
    """[B]: 0 up to max_new_tokens - buffer sampled tokens, then linear down to -factor (DAPO, arXiv:2503.14476)."""
    return -factor * ((lengths - (max_new_tokens - buffer)) / buffer).clamp(0, 1)


@dataclass
class RunningMoments:
    """Count, mean and sum of squared deviations of all finite rewards so far; merged by Chan's formula."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: Iterable[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return
        n, first = len(finite), finite[0]
        mean = first + math.fsum(value - first for value in finite) / n  # exactly `first` where all are equal
        squares = math.fsum((value - mean) ** 2 for value in finite)
        delta, total = mean - self.mean, self.count + n
        self.squares += squares + delta**2 * self.count * n / total
        self.mean += delta * (n / total)  # exactly the mean where these are the first
        self.count = total

    @property
    def std(self) -> float:
        """Sample standard deviation (ddof 1): 0 after equal values; 1 after fewer than two, which have none."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 1.0

    def normalised(self, rewards: Tensor, *, minus_mean: bool) -> Tensor:
        """With the state as it is: `update` comes first. Where nothing has varied yet, the scale stays."""
        return (rewards - self.mean * minus_mean) / (self.std or 1.0)


def clipped_rewards(rewards: Tensor, limit: float) -> tuple[Tensor, float]:
    """Rewards within +-limit, and the share of finite ones that were outside before. Others stay as they are."""
    finite = rewards.isfinite()
    outside = (rewards.abs() > limit) & finite
    return rewards.clamp(-limit, limit).where(finite, rewards), float(
        outside.sum().double() / finite.sum().clamp(min=1)
    )
