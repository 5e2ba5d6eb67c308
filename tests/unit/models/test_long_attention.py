"""Attention of long rows without a mask is products of matrices on a CPU, and the library's in every other case."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lightrft.models import products
from lightrft.models.attention import attention

MODULE = SimpleNamespace(is_causal=True, num_key_value_groups=2, training=True)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    made, own = [], products._product
    monkeypatch.setattr(products, "_product", lambda *given: made.append(1) or own(*given))
    return made


def states(tokens: int, keys: int | None = None, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, length, 32, generator=draw).to(dtype).requires_grad_()
        for heads, length in ((4, tokens), (2, keys or tokens), (2, keys or tokens))
    ]


def test_long_rows_have_the_librarys_outputs_and_gradients(asked):
    given, exact = states(300), states(300, dtype=torch.float64)
    told = {"scaling": 0.3, "dropout": 0.0, "sliding_window": 300, "use_cache": False}
    found, wanted = attention(MODULE, *given, None, **told)[0], sdpa_attention_forward(MODULE, *exact, None, **told)[0]
    assert asked and found.shape == wanted.shape and found.is_contiguous()
    assert (found - wanted).abs().max() < 1e-5
    for out in (found, wanted):
        (out * torch.linspace(-1, 1, 32, dtype=out.dtype)).square().sum().backward()
    for mine, its in zip(given, exact, strict=True):
        assert (mine.grad - its.grad).norm() < 1e-6 * its.grad.norm()


@pytest.mark.parametrize(
    ("tokens", "keys", "mask", "told"),
    [
        (255, None, False, {}),
        (300, 301, False, {}),
        (300, None, True, {}),
        (300, None, False, {"is_causal": False}),
        (300, None, False, {"dropout": 0.1}),
    ],
    ids=str,
)
def test_all_others_are_the_librarys_to_the_bit(tokens, keys, mask, told, asked):
    given = states(tokens, keys)
    seen = torch.ones(tokens, keys or tokens, dtype=torch.bool).tril()[None, None] if mask else None
    made = []
    for compute in (attention, sdpa_attention_forward):
        torch.manual_seed(0)
        made.append(compute(MODULE, *given, seen, **told)[0])
    assert not asked and torch.equal(*made)


def test_values_of_another_width_are_left_to_the_library(asked):
    """As in DeepSeek's attention."""
    query, key, value = states(300)
    narrow = query, key, value[..., :16]
    found, wanted = attention(MODULE, *narrow, None)[0], sdpa_attention_forward(MODULE, *narrow, None)[0]
    assert not asked and torch.equal(found, wanted)


def test_a_window_that_is_shorter_than_the_row_is_left_to_the_library(asked):
    attention(MODULE, *states(300), None, sliding_window=299)
    assert not asked
