"""Heads, hidden states and tokens of tests."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(rows=10, words=23, width=5, dtype=torch.float64) -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    shapes = ((rows, width), (words, width), (words,))
    return [torch.randn(*shape, generator=make, dtype=dtype).requires_grad_() for shape in shapes]


def some_tokens(rows=10, words=23) -> Tensor:
    return torch.randint(words, (rows,), generator=torch.Generator().manual_seed(1))
