"""Rollouts to tensors, with the log-probabilities of the old and the reference policy where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightrft.batch import Batch, collate
from lightrft.models.token_model import TokenModel
from lightrft.step_index import StepIndex
from lightrft.strategy.base import Strategy
from lightrft.types import Rollout
from lightrft.update.critic import Critic
from lightrft.update.partition import MicroBatchSize
from lightrft.update.passes import in_passes


class Scorer:
    """old_logprobs where `scores_policy`: with one optimizer step per rollout step and no KL in the reward the current
    ones are the old ones. With them the entropy where it is asked for; ref_logprobs when a reference is given; values
    when a critic is. size: of one pass."""

    def __init__(
        self,
        strategy: Strategy,
        policy: TokenModel,
        reference: TokenModel | None,
        critic: Critic | None = None,
        *,
        size: MicroBatchSize,
        scores_policy: bool,
        with_entropy: bool = False,
    ) -> None:
        self.strategy, self.policy, self.reference, self.critic = strategy, policy, reference, critic
        self.size, self.scores_policy, self.with_entropy = size, scores_policy, with_entropy

    def to_batch(self, rollouts: Sequence[Rollout], index: StepIndex, temperature: float) -> Batch:
        """This rank's rollouts, maybe none; `temperature` is the one that they were sampled at."""
        batch = collate(rollouts, temperature, self.strategy.world.device).filled(index=index)
        if self.scores_policy and self.with_entropy:
            old, entropy = in_passes(batch, self.size, self._with_entropy)
            batch = batch.filled(old_logprobs=old, entropy=entropy)
        elif self.scores_policy:
            batch = batch.filled(old_logprobs=in_passes(batch, self.size, _logprobs_of(self.policy)))
        if self.reference is not None:
            batch = batch.filled(ref_logprobs=in_passes(batch, self.size, _logprobs_of(self.reference)))
        if self.critic is not None:
            batch = batch.filled(values=in_passes(batch, self.size, self.critic.model.values))
        return batch

    def _with_entropy(self, rows: Batch) -> Tensor:
        """[2, b, t]: log-probabilities and entropies."""
        scores = self.policy.logprobs(rows, entropy="value")
        assert scores.entropy is not None
        return torch.stack([scores.logprobs, scores.entropy])


def _logprobs_of(model: TokenModel) -> Callable[[Batch], Tensor]:
    return lambda rows: model.logprobs(rows).logprobs
