"""All rows of a rank through a model, some at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightrft.batch import Batch
from lightrft.ranks.pulse import PULSE


@torch.no_grad()
def in_passes(batch: Batch, size: int, score: Callable[[Batch], Tensor]) -> Tensor:
    """[..., B, T] float32 from a `score` of [..., b, t], called with `size` rows at a time, trimmed to their longest.

    Every rank makes as many passes as the one with the most rows, the last of them over a row that weighs nothing:
    sharded models need every rank in every pass.
    """
    passes, count = [], batch.index.passes(size)
    for start in range(0, count * size, size):
        PULSE.part(f"pass {start // size + 1} of {count}")
        rows = range(start, min(start + size, len(batch)))
        scored = score(batch.select(rows) if rows else batch.dummy_row())
        wider = batch.input_ids.shape[1] - scored.shape[-1]
        passes.append(pad(scored[..., : len(rows), :].float(), (0, wider)))
    return torch.cat(passes, dim=-2)
