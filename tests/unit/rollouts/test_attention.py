"""Attention of one query per row, against torch's kernel."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lightrft.rollouts.engines.attention import one_token, one_token_attention

ROWS, KEYS, WIDTH = 3, 7, 8


def states(heads, groups, queries=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(heads)
    shapes = ((heads, queries, WIDTH), (groups, KEYS, WIDTH), (groups, KEYS, 5))
    return [torch.randn(ROWS, *shape, generator=generator).to(dtype) for shape in shapes]


def masks(heads):
    seen = torch.arange(KEYS) >= torch.tensor([0, 3, 6])[:, None]  # as prompts of three lengths are padded
    bias = torch.randn(ROWS, heads, 1, KEYS, generator=torch.Generator().manual_seed(1))
    one = seen[:, None, None]
    return {"none": None, "boolean": one, "additive": torch.where(one, 0.0, -torch.inf), "by head": bias}


@pytest.mark.parametrize("kind", masks(1))
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_torch_s_attention(kind, heads, groups, scaling):
    query, key, value = states(heads, groups)
    mask = masks(heads)[kind]
    found = one_token(query, key, value, mask, scaling)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=0, atol=1e-6)


def test_it_is_as_near_in_bfloat16_as_rounding_is():
    query, key, value = states(6, 2, dtype=torch.bfloat16)
    exact = one_token(query.float(), key.float(), value.float(), None, None)
    found = one_token(query, key, value, None, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("queries", "heads", "dtype", "taken"),
    [(1, 6, torch.float32, 1), (1, 2, torch.bfloat16, 1), (1, 2, torch.float32, 0), (4, 6, torch.float32, 0)],
)
def test_models_get_it_where_it_gains_and_for_as_long_as_tokens_are_decoded(monkeypatch, queries, heads, dtype, taken):
    calls = []
    monkeypatch.setattr(
        "lightrft.rollouts.engines.attention.one_token",
        lambda *given: calls.append(given) or one_token(*given),
    )
    usual, given = ALL_ATTENTION_FUNCTIONS["sdpa"], states(heads, 2, queries, dtype)
    layer = torch.nn.Module()
    layer.num_key_value_groups, layer.is_causal = heads // 2, True
    wanted, _ = usual(layer, *given, None, scaling=0.5)
    with pytest.raises(ValueError, match="on purpose"), one_token_attention():
        found, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](layer, *given, None, scaling=0.5)
        raise ValueError("on purpose")
    assert len(calls) == taken and ALL_ATTENTION_FUNCTIONS["sdpa"] is usual
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)
