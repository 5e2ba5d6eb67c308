"""Rollouts to tensors, with the log-probabilities of the old and the reference policy where they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightrft.models.forward import token_logprobs
from lightrft.models.packing import Cost
from lightrft.strategy.base import Handle, Strategy
from lightrft.types import Batch, Rollout


def _padded(rows: Sequence[Sequence[Any]], dtype: torch.dtype, fill: float = 0) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)


def collate(rollouts: Sequence[Rollout], temperature: float, device: torch.device) -> Batch:
    """Right-padded [B, T] tensors of prompt and response; an invalid reward becomes NaN (and never 0)."""
    ids = [[*r.prompt_ids, *r.response_ids] for r in rollouts]
    mask = [[*[0] * len(r.prompt_ids), *r.response_mask] for r in rollouts]
    logprobs = [[*[0.0] * len(r.prompt_ids), *r.rollout_logprobs] for r in rollouts]
    totals = [math.nan if r.reward is None or r.reward.error else r.reward.total for r in rollouts]
    batch = Batch(
        input_ids=_padded(ids, torch.long),
        attention_mask=_padded([[1] * len(row) for row in ids], torch.long),
        response_mask=_padded(mask, torch.long),
        rollout_logprobs=_padded(logprobs, torch.float32),
        rewards=torch.tensor(totals, dtype=torch.float64),
        group=torch.tensor([r.group for r in rollouts]),
        prompt_lengths=torch.tensor([len(r.prompt_ids) for r in rollouts]),
        temperature=temperature,
    )
    return batch.to(device)


class Scorer:
    """old_logprobs unless `on_policy` (one optimizer step per rollout step: the current ones are the old ones);
    ref_logprobs when a reference is given."""

    def __init__(
        self,
        strategy: Strategy,
        policy: Handle,
        reference: Handle | None,
        *,
        temperature: float,
        rows: int,
        on_policy: bool,
        sharing: Cost | None = None,
    ) -> None:
        self.strategy, self.policy, self.reference = strategy, policy, reference
        self.temperature, self.rows, self.on_policy, self.sharing = temperature, rows, on_policy, sharing

    def to_batch(self, rollouts: Sequence[Rollout]) -> Batch:
        batch = collate(rollouts, self.temperature, self.strategy.world.device)
        if not self.on_policy:
            batch = batch.filled(old_logprobs=self._score(self.policy, batch))
        if self.reference is not None:
            batch = batch.filled(ref_logprobs=self._score(self.reference, batch))
        return batch

    @torch.no_grad()
    def _score(self, handle: Handle, batch: Batch) -> Tensor:
        """[B, T], computed `rows` rows at a time."""
        found = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        for start in range(0, len(batch), self.rows):
            part = range(start, min(start + self.rows, len(batch)))
            rows = batch.select(part)
            scores = token_logprobs(handle.module, handle.model, rows, sharing=self.sharing).logprobs
            found[start : part.stop, : scores.shape[1]] = scores
        return found
