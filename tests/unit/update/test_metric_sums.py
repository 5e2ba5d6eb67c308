from __future__ import annotations

import pytest
import torch

from lightrft.ranks.base import ONE_RANK
from lightrft.update.metrics import MetricSums


def test_the_p99_is_that_of_all_tokens_that_are_compared():
    """Of 1 to 200 it is 198: 99 % of them do not exceed it. What is masked, or no number, is none of them."""
    values = torch.arange(1.0, 201.0)[torch.randperm(200)]
    sums = MetricSums()
    for part in values.split(60):
        row = torch.stack([part, torch.full_like(part, 1e6)])
        sums.p99("gap", row, torch.tensor([[1], [0]]).expand_as(row))
    sums.p99("gap", torch.tensor([[float("nan")]]), torch.ones(1, 1))
    assert sums.finish(ONE_RANK).metrics == {"gap": 198.0}


@pytest.mark.parametrize(("n", "wanted"), [(1, 1.0), (2, 2.0), (100, 99.0), (101, 100.0)])
def test_few_tokens(n, wanted):
    sums = MetricSums()
    sums.p99("gap", torch.arange(1.0, n + 1)[None], torch.ones(1, n))
    assert sums.finish(ONE_RANK).metrics["gap"] == wanted


def test_where_nothing_is_compared_it_is_0():
    sums = MetricSums()
    sums.p99("gap", torch.ones(2, 3), torch.zeros(2, 3))
    assert sums.finish(ONE_RANK).metrics == {"gap": 0.0}
