"""Rollouts to tensors, with the log-probabilities of the old and the reference policy where they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightrft.batch import Batch, collate
from lightrft.models.token_model import TokenModel
from lightrft.step_index import StepIndex
from lightrft.strategy.base import Strategy
from lightrft.types import Rollout

if TYPE_CHECKING:
    from lightrft.update.critic import Critic


def slices(batch: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    """The batch, `size` rows at a time, each trimmed to its longest row; idle ones up to the passes of all ranks."""
    for start in range(0, batch.step.passes(size) * size, size):
        here = slice(start, min(start + size, len(batch)))
        yield (here, batch.select(range(here.start, here.stop))) if start < len(batch) else (slice(0, 0), batch.idle())


class Scorer:
    """old_logprobs unless `on_policy` (one optimizer step per rollout step: the current ones are the old ones);
    with them the entropy where it is asked for; ref_logprobs when a reference is given; values when a critic is."""

    def __init__(
        self,
        strategy: Strategy,
        policy: TokenModel,
        reference: TokenModel | None,
        critic: Critic | None = None,
        *,
        rows: int,
        on_policy: bool,
        with_entropy: bool = False,
    ) -> None:
        self.strategy, self.policy, self.reference, self.critic = strategy, policy, reference, critic
        self.rows, self.on_policy, self.with_entropy = rows, on_policy, with_entropy

    def to_batch(self, rollouts: Sequence[Rollout], index: StepIndex, temperature: float) -> Batch:
        """This rank's rollouts, maybe none; `temperature` is the one that they were sampled at."""
        batch = collate(rollouts, temperature, self.strategy.world.device).filled(step=index)
        if not self.on_policy:
            batch = batch.filled(**self._score(self.policy, batch, "old_logprobs", with_entropy=self.with_entropy))
        if self.reference is not None:
            batch = batch.filled(**self._score(self.reference, batch, "ref_logprobs"))
        if self.critic is not None:
            batch = batch.filled(values=self.critic.values(batch))
        return batch

    @torch.no_grad()
    def _score(self, model: TokenModel, batch: Batch, name: str, *, with_entropy: bool = False) -> dict[str, Tensor]:
        """[B, T] under `name`, and "entropy" where asked for; computed `rows` rows at a time."""
        found = {key: torch.zeros(batch.input_ids.shape, device=batch.input_ids.device) for key in (name, "entropy")}
        for place, rows in slices(batch, self.rows):
            scores = model.logprobs(rows, entropy="value" if with_entropy else None)
            found[name][place, : scores.logprobs.shape[1]] = scores.logprobs
            if scores.entropy is not None:
                found["entropy"][place, : scores.logprobs.shape[1]] = scores.entropy
        return found if with_entropy else {name: found[name]}
