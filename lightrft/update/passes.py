"""All rows of a rank through a model, some at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightrft.batch import Batch
from lightrft.ranks.pulse import PULSE
from lightrft.update.partition import MicroBatchSize, passes


@torch.no_grad()
def in_passes(batch: Batch, size: MicroBatchSize, score: Callable[[Batch], Tensor]) -> Tensor:
    """[..., B, T] float32 from a `score` of [..., b, t], called with so many rows at a time, trimmed to their longest.

    Every rank makes as many passes as the one with the most, the last of them over a row that weighs nothing: sharded
    models need every rank in every pass.
    """
    found: Tensor | None = None
    parts = passes(batch.index, size)
    for number, of_index in enumerate(parts, start=1):
        PULSE.part(f"pass {number} of {len(parts)}")
        rows = batch.index.batch_rows(of_index)
        scored = score(batch.select(rows) if rows else batch.dummy_row()).float()
        if found is None:
            found = scored.new_zeros(*scored.shape[:-2], *batch.input_ids.shape)
        if rows:
            found[..., rows, : scored.shape[-1]] = scored
    assert found is not None, "a rollout step has rows, on one rank at least"
    return found
