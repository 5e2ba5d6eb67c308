"""Random ragged batches for the property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64, sums of a few dozen terms in another order
SEEDS = st.integers(0, 2**32 - 1)


def batch(seed: int, rows: int = 5, width: int = 7):
    """Ragged rows with holes; the last row is empty. One advantage a row."""
    numbers = torch.Generator().manual_seed(seed)
    mask = (torch.rand(rows, width, generator=numbers) < 0.8).long()
    mask[:, 0], mask[-1] = 1, 0
    logp = -torch.rand(rows, width, generator=numbers, dtype=torch.float64) * 3
    old = logp + 0.5 * torch.randn(rows, width, generator=numbers, dtype=torch.float64)
    advantages = torch.randn(rows, 1, generator=numbers, dtype=torch.float64).expand(rows, width)
    return logp, old, advantages, mask
