"""Rewards of a rollout step, shaped and turned into advantages: the whole of algorithms S7.1, in its order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from lightrft.algorithms.estimator import AdvantageSettings, Estimator
from lightrft.algorithms.ranks import mean
from lightrft.algorithms.shaping import RunningMoments, clipped_rewards, overlong_penalty
from lightrft.batch import Batch
from lightrft.ranks.base import Ranks
from lightrft.update.health import Health, none_finite
from lightrft.update.kl import KLTerm


@dataclass(frozen=True)
class ShapingSettings:
    """What is done to raw rewards, and which tokens are not trained on. overlong_buffer 0, reward_clip 0: not done."""

    max_new_tokens: int
    overlong_buffer: int = 0
    overlong_factor: float = 1.0
    overlong_filter: bool = False
    mask_first: bool = False
    running_norm: bool = False
    minus_mean: bool = False
    reward_clip: float = 0.0


@dataclass
class AdvantageStage:
    """Each rank has its own rows of the rollout step; every statistic is over the rows of all of them."""

    ranks: Ranks
    estimator: Estimator
    kl: KLTerm
    shaping: ShapingSettings
    settings: AdvantageSettings
    moments: RunningMoments = field(default_factory=RunningMoments)

    def __post_init__(self) -> None:
        self.health = Health(by_prompt="group" in self.estimator.needs)

    def __call__(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        """The batch with shaped rewards and advantages, truncated rows masked where asked for, and metrics."""
        batch = self._filtered(batch)
        rewards, shaped = self._shaped(batch)
        settings = replace(self.settings, kl_coef=self.kl.at("reward"))
        found, metrics = self.estimator.fill_advantages(batch.filled(rewards=rewards), settings, self.ranks)
        self._look(found)
        if metrics["policy/nonfinite_frac"] and not self.health.trained:
            raise none_finite(batch, self.ranks, self.health.steps)
        return found, {**shaped, **metrics}

    def _look(self, batch: Batch) -> None:
        rows = zip(batch.group.tolist(), batch.rewards.tolist(), batch.response_mask.any(-1).tolist(), strict=True)
        self.health.see(self.ranks.gather([row for row in rows if math.isfinite(row[1])]))

    def _shaped(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        s, rewards, metrics = self.shaping, batch.rewards, {}
        if s.overlong_buffer:
            lengths = (batch.lengths - batch.prompt_lengths).to(rewards.dtype)
            penalty = overlong_penalty(lengths, s.max_new_tokens, s.overlong_buffer, s.overlong_factor)
            rewards, metrics["reward/overlong"] = rewards + penalty, mean(penalty, self.ranks)
        if s.running_norm:
            self.moments.update(self.ranks.gather(rewards.tolist()))
            rewards = self.moments.normalised(rewards, minus_mean=s.minus_mean)
            metrics["reward/running_std"] = self.moments.std
        if s.reward_clip:
            rewards, metrics["reward/clip_frac"] = clipped_rewards(rewards, s.reward_clip, self.ranks)
        return rewards, metrics

    def _filtered(self, batch: Batch) -> Batch:
        """Truncated rows count in their groups, but none of their tokens does: not in the whitening either. The same
        for hot first tokens where they are masked."""
        mask = batch.response_mask
        mask = mask * ~batch.truncated[:, None] if self.shaping.overlong_filter else mask
        return batch.filled(response_mask=mask * ~batch.first_tokens if self.shaping.mask_first else mask)

    def state(self) -> dict[str, Any]:
        """For the checkpoint: the reward's moments, the KL coefficient, and what there was to learn from."""
        return {"moments": asdict(self.moments), "kl": self.kl.state(), "health": self.health.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.moments = RunningMoments(**{name: float(value) for name, value in state["moments"].items()})
        self.kl.load_state(state["kl"])
        self.health.load_state(state.get("health", {}))
