"""A layer with several calls of attention that is computed twice: each gets back what it gave."""

from __future__ import annotations

import pytest
import torch
from kernel_calls import KernelCalls
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from lightrft.models.attention_once import first_and_again, kernels_once
from lightrft.models.segments import Segments, Tree, attend

SEGMENTS = Segments(((Tree(2, (3, 2)),),), 7)


def in_blocks(query, key, value):
    return attend(query, key, value, SEGMENTS, None)


def by_pytorch(query, key, value):
    with kernels_once():
        return scaled_dot_product_attention(query, key, value, is_causal=True)


def layer(states, attention):
    """Two calls in one layer, of different inputs."""
    query, key, value = states
    return attention(query, key, value) + 2 * attention(value.sin(), query, key)


@pytest.mark.parametrize("attention", [in_blocks, by_pytorch])
def test_each_call_gets_its_own(attention):
    states = torch.randn(3, 1, 4, 7, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (wanted,) = torch.autograd.grad(layer(states, attention).sin().sum(), states)
    with KernelCalls() as calls:
        twice = checkpoint(layer, states, attention, use_reentrant=False, context_fn=first_and_again)
        ran = calls.named("attention")
        (found,) = torch.autograd.grad(twice.sin().sum(), states)
    assert torch.equal(found, wanted) and calls.named("attention") == ran > 0


def test_layers_do_not_mix():
    states = torch.randn(3, 1, 4, 7, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def three(run):
        x = states
        for _ in range(3):
            x = torch.stack([x[1], x[2], run(x)])
        return x.sin().sum()

    twice = three(lambda x: checkpoint(layer, x, in_blocks, use_reentrant=False, context_fn=first_and_again))
    wanted, found = (torch.autograd.grad(total, states)[0] for total in (three(lambda x: layer(x, in_blocks)), twice))
    assert torch.equal(found, wanted)
