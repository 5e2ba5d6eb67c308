"""The strategy of one process in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightrft.ranks.base import World
from lightrft.strategy.base import OptimArgs
from lightrft.strategy.one_process import ALIGNED, OneProcess

ALONE = World(0, 1, 0, 1, 0, 1, torch.device("cpu"))
SGD = OptimArgs("sgd", 0.5, (0.9, 0.99), 1e-8, 0.0, 0.0, "constant", warmup_steps=0, total_steps=10)


@pytest.mark.parametrize("optim", [None, SGD])
def test_weights_lie_where_torch_would_put_them(optim):
    """A model that learns, and one that does not: theirs came from the middle of a file."""
    model, file = nn.Linear(4, 3), torch.arange(20.0)
    model.weight.data, model.bias.data = file[1:13].view(3, 4), file[13:16]
    handle = OneProcess(ALONE).prepare(model, optim)
    assert [p.data_ptr() % ALIGNED for p in handle.model.parameters()] == [0, 0]
    assert model.weight.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]] and model.bias.tolist() == [
        13,
        14,
        15,
    ]
