"""Rewards of a rollout step, shaped and turned into advantages: the whole of algorithms S7.1, in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lightrft.algorithms.estimator import AdvantageSettings, Estimator
from lightrft.algorithms.shaping import RunningMoments, clipped_rewards, overlong_penalty
from lightrft.batch import Batch
from lightrft.ranks.base import Ranks
from lightrft.step_index import StepIndex
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
    """Each rank has its own rows of the rollout step, and an index of all of them; every statistic is over all."""

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
        rewards, shaped = self._shaped(batch.index)
        batch = self._filtered(batch.with_rewards(rewards))
        settings = replace(self.settings, kl_coef=self.kl.at("reward"))
        filled, metrics = self.estimator.fill_advantages(batch, settings, self.ranks)
        trained, moves = filled.response_mask.sum(-1).tolist(), (filled.advantages != 0).any(-1).tolist()
        index = batch.index.after_advantages(trained, moves, self.ranks)
        self.health.see(index)
        if metrics["policy/nonfinite_frac"] and not self.health.trained:
            raise none_finite(batch, self.ranks, self.health.steps)
        return filled.filled(index=index), {**shaped, **metrics}

    def _shaped(self, index: StepIndex) -> tuple[np.ndarray, dict[str, float]]:
        """The rewards [R] of all ranks' rows."""
        s, rewards, metrics = self.shaping, torch.from_numpy(index.rewards), {}
        if s.overlong_buffer:
            lengths = torch.from_numpy(index.lengths - index.prompt_lengths).to(rewards.dtype)
            penalty = overlong_penalty(lengths, s.max_new_tokens, s.overlong_buffer, s.overlong_factor)
            rewards, metrics["reward/overlong"] = rewards + penalty, float(penalty.mean())
        if s.running_norm:
            self.moments.update(rewards.tolist())
            rewards = self.moments.normalised(rewards, minus_mean=s.minus_mean)
            metrics["reward/running_std"] = self.moments.std
        if s.reward_clip:
            rewards, metrics["reward/clip_frac"] = clipped_rewards(rewards, s.reward_clip)
        return rewards.numpy(), metrics

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
