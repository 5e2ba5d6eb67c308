from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear

from lightrft.models.rounded import rounded


def half(value):
    return value.bfloat16().float()


def test_linear_layers_read_and_write_rounded_numbers_while_it_lasts():
    torch.manual_seed(0)
    embed, norm, head = nn.Embedding(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)
    model, ids = nn.Sequential(embed, norm, head), torch.tensor([1, 4])
    with torch.no_grad():
        exact = model(ids)
        with rounded(model, torch.bfloat16):
            found = model(ids)
        hidden = half(norm(half(embed(ids))))
        assert torch.equal(found, half(linear(hidden, half(head.weight), head.bias)))
        assert torch.equal(model(ids), exact) and not torch.equal(found, exact)
        assert head.weight.dtype == torch.float32


def test_a_hook_that_was_there_before_sees_to_the_input_first():
    """As `head_on`, which lets the head see some positions only; it may come later too."""
    head = nn.Linear(4, 2)
    with torch.no_grad(), rounded(head, torch.bfloat16):
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:1],))
        assert head(torch.ones(3, 4)).shape == (1, 2)
        hook.remove()
