"""The critic's part of a step: values of a rollout step before anything learns, then gradients of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightrft.algorithms.functional import Counts, aggregate
from lightrft.algorithms.losses import value_loss
from lightrft.batch import Batch
from lightrft.models.token_model import TokenCritic
from lightrft.strategy.base import Strategy
from lightrft.update.metrics import MetricSums
from lightrft.update.score import slices


class Critic:
    """Learns the returns beside the policy: the same rows, micro-batches and denominators, a model of its own.

    rows: scored at a time.
    """

    def __init__(self, strategy: Strategy, model: TokenCritic, *, aggregation: str, clip: float, rows: int) -> None:
        self.strategy, self.model = strategy, model
        self.aggregation, self.clip, self.rows = aggregation, clip, rows

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """[B, T] float32, as the critic is now; 0 where the response mask is 0."""
        found = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        for place, rows in slices(batch, self.rows):
            values = self.model.values(rows)
            found[place, : values.shape[1]] = values
        return found

    def backward(self, micro_batches: Sequence[Batch], counts: Counts, sums: MetricSums) -> None:
        """The gradient of one optimizer step."""
        for number, batch in enumerate(micro_batches):
            loss = self._loss(batch, counts, sums)
            self.strategy.backward(self.model.handle, loss, last=number == len(micro_batches) - 1)

    def _loss(self, batch: Batch, counts: Counts, sums: MetricSums) -> Tensor:
        mask = batch.response_mask
        found = value_loss(self.model.values(batch), batch.values, batch.returns, mask, self.clip)
        loss = aggregate(found.loss, mask, self.aggregation, counts, batch.group_tokens)
        sums.add("critic/loss", loss)
        for name, values in found.metrics.items():
            sums.mean(name, values, mask)
        return loss
