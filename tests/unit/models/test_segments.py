"""Attention over rows of several sequences is attention under the mask that says what each token sees."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from lightrft.models import products, segment_kernels, segment_products, segments
from lightrft.models.segment_blocks import OfQuery, Rule
from lightrft.models.segments import Segments, Tree, attend

DENSE = segment_kernels.OneByOne(segment_kernels._dense, segment_kernels._dense_backward)
# a prompt with three responses, a sequence without a prompt, one without a response, empty responses, and padding
ROWS = Segments(((Tree(3, (2, 4, 1)), Tree(0, (5,)), Tree(2, (0, 3))), (Tree(4, (6,)), Tree(2, (1, 0)))), 22)
LONG = [((3, 1), 300, 256), ((2, 2), 512, 512), ((4, 2), 500, 500)]  # heads, tokens, keys


def seen(rows: Segments) -> torch.Tensor:
    """[rows, width, width], token by token."""
    mask = torch.zeros(len(rows.rows), rows.width, rows.width, dtype=torch.bool)
    for row, trees in enumerate(rows.rows):
        end = 0
        for tree in trees:
            first, end = end, end + tree.prompt
            for token in range(first, end):
                mask[row, token, first : token + 1] = True
            for length in tree.responses:
                for token in range(end, end + length):
                    mask[row, token, first : first + tree.prompt] = True
                    mask[row, token, end : token + 1] = True
                end += length
        for token in range(end, rows.width):
            mask[row, token, end : token + 1] = True
    return mask


def laid_end_to_end(states, lengths, rule):
    """What FlashAttention's kernel for sequences of any lengths computes, one after another."""
    (query, key, value), (ends, key_ends, most, most_keys), made = states, lengths, []
    for (start, end), (first, last) in zip(pairwise(ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        assert 0 < end - start <= most and 0 < last - first <= most_keys
        views = (each.transpose(0, 1)[None] for each in (query[start:end], key[first:last], value[first:last]))
        made.append(segment_kernels._dense(tuple(views), rule))
    outs, sums = zip(*made, strict=True)
    return torch.cat(outs, 2)[0].transpose(0, 1), torch.cat(sums, 2)[0]


def laid_end_to_end_backward(states, own, lengths, rule):
    (query, key, value), (grad, out, lse), (ends, key_ends, *_), made = states, own, lengths, []
    for (start, end), (first, last) in zip(pairwise(ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        of_query, of_key = slice(start, end), slice(first, last)
        given = (query[of_query], key[of_key], value[of_key], grad[of_query], out[of_query])
        views = [each.transpose(0, 1)[None] for each in given]
        own = (*views[3:], lse[None, :, of_query])
        made.append(gradients(segment_kernels._dense_backward, tuple(views[:3]), own, rule))
    return tuple(torch.cat(parts, 2)[0].transpose(0, 1) for parts in zip(*made, strict=True))


def gradients(backward, states, own, rule):
    sums = tuple(torch.zeros_like(each) for each in states)
    backward(states, own, sums, rule)
    return sums


@pytest.fixture(params=("the CPU's kernel", "scores as a whole", "products", "all blocks together"))
def kernel(request, monkeypatch):
    """The last with another kernel in the place of the GPU's: where its tokens come from and go to is what is tried."""
    if request.param == "scores as a whole":
        monkeypatch.setattr(segments, "kernel_for", lambda query, key: DENSE)
    if request.param == "products":
        monkeypatch.setattr(segment_kernels, "is_long", lambda states: True)
        for name, value in {"QUERIES": 7, "CELLS": 15, "LEAST": 4, "CAUSAL": 5}.items():
            monkeypatch.setattr(segment_products, name, value)
    if request.param == "all blocks together":
        monkeypatch.setattr(segments, "kernel_for", lambda query, key: segment_kernels.Together())
        monkeypatch.setattr(segment_kernels, "_flash", laid_end_to_end)
        monkeypatch.setattr(segment_kernels, "_flash_backward", laid_end_to_end_backward)


@pytest.mark.parametrize("groups", (6, 2, 1))
@pytest.mark.parametrize("scale", (None, 0.3))
def test_what_tokens_see_is_what_the_mask_says(kernel, groups, scale):
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(2, n, 22, 8, dtype=torch.float64, generator=draw) for n in (6, groups, groups)]
    query, key, value = (each.requires_grad_() for each in states)
    found = attend(query, key, value, ROWS, scale)
    wanted = scaled_dot_product_attention(
        query, *(each.repeat_interleave(6 // groups, 1) for each in (key, value)), seen(ROWS)[:, None], scale=scale
    )
    assert (found - wanted).abs().max() < 1e-12
    weights = torch.randn(found.shape, dtype=torch.float64, generator=draw)
    gave, exact = (torch.autograd.grad((each * weights).sum(), states) for each in (found, wanted))
    assert max(float((a - b).abs().max()) for a, b in zip(gave, exact, strict=True)) < 1e-12


def test_two_tokens_by_hand():
    """A prompt of one token with two responses of one: scores 0 and ln 3 weigh values 1 and 5 to 4."""
    query = torch.tensor([0.0, 1.0, 1.0])[None, None, :, None]
    key = torch.tensor([0.0, 3.0, 9.0]).log().nan_to_num(neginf=0.0)[None, None, :, None]
    value = torch.tensor([1.0, 5.0, 11.0])[None, None, :, None]
    found = attend(query, key, value, Segments(((Tree(1, (1, 1)),),), 3), 1.0).flatten().tolist()
    assert found == pytest.approx([1.0, 4.0, 10.0])


def test_parts_are_joined_as_exactly_as_one_softmax_rounds():
    """Of scores of some tens, in float32 beside float64; shares that do not sum to 1 were a third further off."""
    rows, squares = Segments(((Tree(6, (8, 8, 8, 8)),),), 38), []
    mask = seen(rows)[:, None]
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        query, key, value = (scale * torch.randn(1, 4, 38, 32, generator=draw) for scale in (5.0, 5.0, 1.0))
        exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), mask)
        made = attend(query, key, value, rows, None), scaled_dot_product_attention(query, key, value, mask)
        squares.append([float((each - exact).square().sum()) for each in made])
    in_blocks, under_a_mask = torch.tensor(squares).sum(0)
    assert in_blocks < under_a_mask


@pytest.mark.parametrize(("heads", "tokens", "keys"), LONG, ids=str)
def test_a_long_block_is_products_of_matrices(heads, tokens, keys, monkeypatch):
    """In float32; keys behind a token have scores whose exponentials would be infinite."""
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(given[0].shape) or own(*given))
    draw = torch.Generator().manual_seed(0)
    query, grad = (torch.randn(1, heads[0], tokens, 16, generator=draw) for _ in range(2))
    key, value = (torch.randn(1, heads[1], keys, 16, generator=draw) for _ in range(2))
    states, rule = (3 * query, 3 * key * torch.linspace(0, 3, keys)[:, None], value), Rule(tokens == keys, 0.25)
    exact = tuple(each.double() for each in states)
    out, lse = segment_kernels._dense(exact, rule)
    found = segment_kernels._cpu(states, rule)
    assert asked
    asked.clear()
    torch.testing.assert_close(found, (out.float(), lse.float()), rtol=1e-5, atol=1e-4)
    of_query = OfQuery(grad, out.float(), lse.float())
    wanted = gradients(segment_kernels._dense_backward, exact, OfQuery(grad.double(), out, lse), rule)
    for mine, its in zip(gradients(segment_kernels._cpu_backward, states, of_query, rule), wanted, strict=True):
        assert (mine - its).norm() < 1e-5 * its.norm()
    assert asked


def test_blocks_of_few_keys_and_in_other_precisions_are_not():
    def is_long(heads: int, tokens: int, keys: int, dtype: torch.dtype = torch.float32) -> bool:
        query, key = torch.empty(1, 4, tokens, 8, dtype=dtype), torch.empty(1, heads, keys, 8, dtype=dtype)
        return segment_products.is_long((query, key, key))

    assert is_long(2, 256, 256) and is_long(4, 512, 256)
    assert not (is_long(2, 256, 255) or is_long(2, 255, 256) or is_long(4, 511, 511))
    assert not (is_long(2, 256, 256, torch.bfloat16) or is_long(2, 256, 256, torch.float64))


@pytest.mark.parametrize("large", (1e30, -1e30, torch.inf, torch.nan))
def test_what_is_not_finite_stays_so(large):
    """The CPU's own kernel answers scores of -inf and NaN with zeros."""
    states = [torch.full((2, 2, 22, 8), each) for each in (1e30, large, 1.0)]
    assert bool(attend(*states, ROWS, None).isnan().any())
    assert bool(attend(states[2], states[2], states[2], ROWS, None).isfinite().all())


def test_in_half_precision_parts_are_joined_in_float32():
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 2, 22, 16, generator=draw).bfloat16() for _ in range(3)]
    wanted = scaled_dot_product_attention(*(each.float() for each in states), seen(ROWS)[:, None])
    assert (attend(*states, ROWS, None).float() - wanted).abs().max() < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32))
def test_on_a_gpu_as_on_a_cpu(dtype):
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(2, n, 22, 64, generator=draw) for n in (6, 2, 2)]
    given = [[each.to(device, dtype).requires_grad_() for each in states] for device in ("cpu", "cuda")]
    outs = [attend(*each, ROWS, None) for each in given]
    grads = [torch.autograd.grad(out.float().square().sum(), each) for out, each in zip(outs, given, strict=True)]
    bound = 0.05 if dtype == torch.bfloat16 else 1e-4
    for on_cpu, on_gpu in zip((outs[0], *grads[0]), (outs[1], *grads[1]), strict=True):
        assert (on_gpu.cpu().float() - on_cpu.float()).abs().max() < bound * (1 + on_cpu.float().abs().max())
