"""The critic's part of an optimizer step: gradients of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightrft.algorithms.functional import Counts, aggregate
from lightrft.algorithms.losses import value_loss
from lightrft.batch import Batch
from lightrft.models.token_model import TokenCritic
from lightrft.ranks.pulse import PULSE
from lightrft.strategy.base import Strategy
from lightrft.update.metrics import MetricSums


class Critic:
    """Learns the returns beside the policy: the same rows, micro-batches and denominators, a model of its own."""

    def __init__(self, strategy: Strategy, model: TokenCritic, *, clip: float) -> None:
        self.strategy, self.model, self.clip = strategy, model, clip

    def backward(self, micro_batches: Sequence[Batch], mode: str, counts: Counts, sums: MetricSums) -> None:
        """The gradient of one optimizer step; mode: how its loss is reduced, as the policy's is."""
        for number, batch in enumerate(micro_batches):
            PULSE.part(f"critic, micro-batch {number + 1} of {len(micro_batches)}")
            loss = self._loss(batch, mode, counts, sums)
            self.strategy.backward(self.model.handle, loss, last=number == len(micro_batches) - 1)

    def _loss(self, batch: Batch, mode: str, counts: Counts, sums: MetricSums) -> Tensor:
        mask = batch.response_mask
        found = value_loss(self.model.values(batch), batch.values, batch.returns, mask, self.clip)
        loss = aggregate(found.loss, mask, mode, counts, batch.group_tokens)
        sums.add("critic/loss", loss)
        for name, values in found.metrics.items():
            sums.mean(name, values, mask)
        return loss
