"""Linear layers whose weights are laid out for a generation, against torch's own products of the same weights."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.local.packed import LEAST, packed
from lightrft.types import Request

ATOL = {torch.float32: 1e-5, torch.bfloat16: 0.01}  # of outputs of size one


class Layers(nn.Module):
    """Large with a bias, large without one, small."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.small = nn.Linear(256, 512), nn.Linear(512, 256, bias=False), nn.Linear(256, 8)
        self.to(dtype)

    def forward(self, x):
        return self.small(self.last(self.first(x)))


def products(call):
    """How many of them were taken of laid out weights."""
    with torch.profiler.profile() as seen:
        call()
    return sum(event.count for event in seen.key_averages() if event.key == "mkldnn::_linear_pointwise")


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("shape", [(3, 256), (1, 256), (2, 5, 256), (70, 1, 256)])
def test_large_layers_give_what_they_gave(dtype, shape):
    model, x = Layers(dtype), torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    aside = torch.stack([x, x], -2)[..., 1, :]  # the same numbers, not side by side in memory
    with torch.no_grad():
        wanted = model(x)
        with packed(model):
            found, again = model(x), model(aside)
            counted = products(lambda: model(x))
    assert found.dtype == dtype and torch.equal(found, again)
    torch.testing.assert_close(found, wanted, rtol=0, atol=ATOL[dtype])
    assert counted == 2 and model.small.weight.numel() < LEAST


@pytest.mark.parametrize("fails", [False, True])
def test_layers_are_as_before_afterwards(fails):
    model = Layers(torch.float32)
    with pytest.raises(ValueError) if fails else nullcontext(), packed(model):
        if fails:
            raise ValueError
    assert products(lambda: model(torch.ones(1, 256))) == 0
    assert model(torch.ones(1, 256)).requires_grad


def test_a_layer_that_computes_in_its_own_way_is_left_alone():
    class Twice(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    inherits = type("Inherits", (nn.Linear,), {})  # as FSDP2 makes of the layers that it shards
    for kind, counted in ((Twice, 0), (inherits, 1)):
        model = nn.Sequential(kind(256, 512))
        with torch.no_grad(), packed(model):
            assert products(lambda model=model: model(torch.ones(1, 256))) == counted


def test_every_generation_is_of_the_weights_as_they_are(causal_model):
    """The layout is of one generation: weights that change in place, between two, are those that are sampled."""

    model = copy.deepcopy(causal_model("llama"))
    model.lm_head = nn.Linear(model.config.hidden_size, 60 * 1024, bias=False)
    engine, asked = LocalEngine(lambda: nullcontext(model), None, ()), [Request((3, 4, 5), (1, 2))]
    first = engine.generate(asked, Sampling(1, temperature=0.0), at_once=1)
    best = first[0][0].response_ids[0]
    with torch.no_grad():
        model.lm_head.weight[best] *= -1
    second = engine.generate(asked, Sampling(1, temperature=0.0), at_once=1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[3, 4, 5]])).logits[0, -1]
    assert int(logits.argmax()) == second[0][0].response_ids[0] != best
