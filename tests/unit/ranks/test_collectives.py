"""What is sent when ranks reduce; that numbers are right over real processes is shown in tests/contract."""

from __future__ import annotations

import torch
import torch.distributed as dist

from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives

TWO = World(rank=0, size=2, dp_rank=0, dp_size=2, sp_rank=0, sp_size=1, device=torch.device("cpu"))
VALUES = {
    "sum": torch.tensor(1.5, dtype=torch.float64),
    "matrix": torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
    "none": torch.zeros(0, dtype=torch.float64),
    "row": torch.tensor([5.0, 6.0], dtype=torch.float64),
}


def test_values_of_one_dtype_travel_in_one_message(monkeypatch):
    """A second rank with the same values: each comes back doubled, in its own place and shape; the given ones stay."""
    sent = []

    def all_reduce(message, op, group):
        sent.append((message.tolist(), op))
        message *= 2

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    found = Collectives(TWO).reduce(VALUES, "max")
    assert sent == [([1.5, 5.0, 6.0], dist.ReduceOp.MAX), ([1.0, 2.0, 3.0, 4.0], dist.ReduceOp.MAX)]
    assert list(found) == list(VALUES) and not any(value.requires_grad for value in found.values())
    for name, value in VALUES.items():
        assert torch.equal(found[name], 2 * value) and found[name].dtype == value.dtype
    assert VALUES["row"].tolist() == [5.0, 6.0]
    assert Collectives(TWO).reduce({}) == {} and len(sent) == 2
