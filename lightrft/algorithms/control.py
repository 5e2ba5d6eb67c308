"""What changes during a run by rule: the KL coefficient and the sampling temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LARGEST_ERROR = 0.2


@dataclass
class KLController:
    """coefficient *= 1 + clip(KL / target - 1, -0.2, 0.2) * min(n / horizon, 1)   (arXiv:1909.08593, section 2.2).

    target None: fixed. floor: the coefficient never falls below. KL is the token mean over the rollout step. initial:
    the coefficient at the start.
    """

    coefficient: float
    target: float | None = None
    horizon: int = 10000
    floor: float = 0.0
    initial: float = field(init=False)

    def __post_init__(self) -> None:
        self.initial = self.coefficient

    def update(self, kl: float, samples: int) -> None:
        """A KL that is not a number changes nothing."""
        if self.target is None or not math.isfinite(kl):
            return
        error = min(max(kl / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient = max(self.coefficient * (1 + error * min(samples / self.horizon, 1.0)), self.floor)


@dataclass(frozen=True)
class TemperatureSchedule:
    """From `start` to `final` over `steps` steps of the loop, then it holds (algorithms S10.3)."""

    kind: str
    start: float
    final: float
    steps: int

    def at(self, step: int) -> float:
        """The temperature of rollout step `step`, counted from 0."""
        f = min(max(step / self.steps, 0.0), 1.0) if self.steps > 0 else 1.0
        if self.kind == "linear":
            return self.start + (self.final - self.start) * f
        if self.kind == "cosine":
            return self.final + (self.start - self.final) * 0.5 * (1 + math.cos(math.pi * f))
        if self.kind == "exponential":
            return self.start * (self.final / self.start) ** f
        assert self.kind == "constant", self.kind
        return self.start
