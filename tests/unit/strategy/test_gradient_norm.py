"""The gradient's length to all digits, however many numbers a tensor has."""

from __future__ import annotations

import math

import pytest
import torch

from lightrft.strategy.gradient_norm import BLOCK, gradient_norm


def test_by_hand():
    """3, 4 and 12; numbers behind the last whole block; two blocks and one."""
    assert gradient_norm([torch.tensor([[3.0], [4.0]]), torch.tensor(12.0)]).item() == 13.0
    tensors = [torch.ones(2 * BLOCK + 1), torch.zeros(0), torch.ones(3, BLOCK).t()]
    assert gradient_norm(tensors).item() == pytest.approx(math.sqrt(5 * BLOCK + 1), rel=1e-7)
    assert gradient_norm([]).item() == 0.0


def test_many_numbers_lose_no_digits():
    """torch's own is 1e-3 off for as many."""
    many = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))
    exact = float(many.double().square().sum().sqrt())
    assert float(gradient_norm([many])) == pytest.approx(exact, rel=2e-7)
    assert gradient_norm([many]).dtype == torch.float32


def test_other_precisions_and_what_is_not_finite():
    assert gradient_norm([torch.full((BLOCK,), 3.0, dtype=torch.bfloat16)]).item() == pytest.approx(
        3 * math.sqrt(BLOCK)
    )
    assert gradient_norm([torch.full((9,), 1e-30, dtype=torch.float64)]).item() == pytest.approx(3e-30)
    for broken in (torch.nan, torch.inf):
        assert not gradient_norm([torch.ones(BLOCK), torch.tensor([1.0, broken])]).isfinite()
