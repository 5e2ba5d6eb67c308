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


def test_another_scale_makes_other_errors_of_the_same_size():
    torch.manual_seed(0)
    layer, x = nn.Linear(256, 256, bias=False), torch.randn(64, 256)
    errors = []
    with torch.no_grad():
        for scale in (1.0, 1.2, 1.45, 1.7):
            with rounded(layer, torch.bfloat16, scale):
                errors.append((layer(x) - linear(x, layer.weight)).flatten())
        with rounded(layer, torch.bfloat16, 1.2):
            assert torch.equal(layer(x), half(1.2 * linear(half(1.2 * x) / 1.2, half(1.2 * layer.weight) / 1.2)) / 1.2)
    sizes = torch.stack(errors).norm(dim=-1)
    assert float(sizes.max() / sizes.min()) < 1.4
    assert float(torch.corrcoef(torch.stack(errors)).triu(1).max()) < 0.5


def test_a_hook_that_was_there_before_sees_to_the_input_first():
    """As `head_on`, which lets the head see some positions only; it may come later too."""
    head = nn.Linear(4, 2)
    with torch.no_grad(), rounded(head, torch.bfloat16):
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:1],))
        assert head(torch.ones(3, 4)).shape == (1, 2)
        hook.remove()
