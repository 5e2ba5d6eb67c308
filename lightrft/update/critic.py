"""The critic's part of a step: values of a rollout step before anything learns, then gradients of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightrft.algorithms.functional import Counts, aggregate
from lightrft.algorithms.losses import value_loss
from lightrft.batch import Batch
from lightrft.models.critic import token_values
from lightrft.models.packing import Cost
from lightrft.strategy.base import Handle, Strategy
from lightrft.update.metrics import MetricSums
from lightrft.update.score import slices


class Critic:
    """Learns the returns beside the policy: the same rows, micro-batches and denominators, a model of its own.

    rows: scored at a time. sharing: the model's costs where samples may share their prompt's computation.
    """

    def __init__(
        self, strategy: Strategy, handle: Handle, *, aggregation: str, clip: float, rows: int, sharing: Cost | None
    ) -> None:
        self.strategy, self.handle = strategy, handle
        self.aggregation, self.clip, self.rows, self.sharing = aggregation, clip, rows, sharing

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """[B, T] float32, as the critic is now; 0 where the response mask is 0."""
        found = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        for place, rows in slices(batch, self.rows):
            values = self._values(rows)
            found[place, : values.shape[1]] = values
        return found

    def backward(self, micro_batches: Sequence[Batch], counts: Counts, sums: MetricSums) -> None:
        """The gradient of one optimizer step."""
        for number, batch in enumerate(micro_batches):
            loss = self._loss(batch, counts, sums)
            self.strategy.backward(self.handle, loss, last=number == len(micro_batches) - 1)

    def _loss(self, batch: Batch, counts: Counts, sums: MetricSums) -> Tensor:
        mask = batch.response_mask
        found = value_loss(self._values(batch), batch.values, batch.returns, mask, self.clip)
        loss = aggregate(found.loss, mask, self.aggregation, counts, batch.group_tokens)
        sums.add("critic/loss", loss)
        for name, values in found.metrics.items():
            sums.mean(name, values, mask)
        return loss

    def _values(self, batch: Batch) -> Tensor:
        return token_values(self.handle.module, batch, sharing=self.sharing)
