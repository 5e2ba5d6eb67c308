"""Attention of blocks of a row, with the log-sum-exp by which blocks are joined: on a CPU, on a GPU, and anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightrft.models.segment_blocks import Block, Blocks, Kernel, OfQuery, Rule, Three
from lightrft.models.segment_products import is_long, products_backward, products_forward


def kernel_for(query: Tensor, key: Tensor) -> Kernel:
    if query.device.type == "cpu" and _may_overflow(query, key):
        return OneByOne(_dense, _dense_backward)
    if query.device.type == "cpu":
        return OneByOne(_cpu, _cpu_backward)
    half = query.dtype in (torch.bfloat16, torch.float16)
    together = query.device.type == "cuda" and half and torch.__version__ >= "2.7"  # as versions; before, lse is padded
    return Together() if together else OneByOne(_dense, _dense_backward)


def _may_overflow(query: Tensor, key: Tensor) -> bool:
    """Scores of NaN or -inf are zeros to the CPU's kernel, which would hide that a model is not finite any more."""
    if not query.numel() or not key.numel():
        return False
    return not math.isfinite(_largest(query) * _largest(key) * query.shape[-1])


def _largest(states: Tensor) -> Tensor:
    """Its maximum norm, NaN where one is NaN, float32: as `vector_norm` has it in ten times as long."""
    states = states.detach()
    return torch.maximum(states.amax(), -states.amin()).float()


class OneByOne:
    """A call for each block, of views."""

    def __init__(self, forward: Any, backward: Any) -> None:
        self.call, self.call_backward = forward, backward

    def forward(self, states: Three, blocks: Blocks, rule: Rule) -> tuple[Tensor, Tensor]:
        query = states[0]
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for block in blocks:
            row, start, end, *_ = block
            made = self.call(_views(states, block), rule)
            out[row : row + 1, :, start:end], lse[row : row + 1, :, start:end] = made
        return out, lse

    def backward(self, states: Three, of_query: OfQuery, sums: Three, blocks: Blocks, rule: Rule) -> None:
        for block in blocks:
            row, start, end, *_ = block
            own = OfQuery(*(each[row : row + 1, :, start:end] for each in of_query))
            self.call_backward(_views(states, block), own, _views(sums, block), rule)


def _views(states: Three, block: Block) -> Three:
    (query, key, value), (row, start, end, first, last) = states, block
    keys, values = (each[row : row + 1, :, first:last] for each in (key, value))
    return query[row : row + 1, :, start:end], keys, values


def _cpu(states: Three, rule: Rule) -> tuple[Tensor, Tensor]:
    if is_long(states):
        return products_forward(states, rule)
    query, key, value = states
    if not _takes_groups():
        key, value = (_repeated(each, query.shape[1]) for each in (key, value))
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, rule.causal, scale=rule.scale
    )  # fmt: skip


def _cpu_backward(states: Three, of_query: OfQuery, sums: Three, rule: Rule) -> None:
    """In float32 also of 16 bits, in which the kernel takes five times as long."""
    groups, precise = states[1].shape[1], of_query[2].dtype
    query, key, value, grad, out, lse = (each.to(precise) for each in (*states, *of_query))
    if is_long((query, key, value)):
        products_backward((query, key, value), OfQuery(grad, out, lse), sums, rule)
        return
    if not _takes_groups():
        key, value = (_repeated(each, query.shape[1]) for each in (key, value))
    made = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, out, lse, 0.0, rule.causal, scale=rule.scale
    )
    _add(sums, (made[0], _of_groups(made[1], groups), _of_groups(made[2], groups)))


def _add(sums: Three, more: Three) -> None:
    for total, part in zip(sums, more, strict=True):
        total += part


@cache
def _takes_groups() -> bool:
    """Whether the CPU's kernel knows query heads that share keys; an older one would take other heads for them."""
    query, key = (torch.arange(heads * 16.0).sin().view(1, heads, 2, 8) for heads in (4, 2))
    call = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    try:
        return torch.allclose(call(query, key, key)[0], call(query, *[_repeated(key, 4)] * 2)[0])
    except RuntimeError:
        return False


def _repeated(states: Tensor, heads: int) -> Tensor:
    return states.repeat_interleave(heads // states.shape[1], dim=1)


def _of_groups(grad: Tensor, groups: int) -> Tensor:
    """[B, H, T, D] to [B, G, T, D]: of heads that share keys, the sum."""
    return grad if grad.shape[1] == groups else grad.unflatten(1, (groups, -1)).sum(2)


def _dense(states: Three, rule: Rule) -> tuple[Tensor, Tensor]:
    """Holds a block's scores: for devices and precisions that no kernel is for."""
    query, key, value = states
    scores = _scores(query, key, rule)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp()
    return (weights @ _repeated(value, query.shape[1]).to(weights.dtype)).to(query.dtype), lse


def _dense_backward(states: Three, of_query: OfQuery, sums: Three, rule: Rule) -> None:
    (query, key, value), (grad, out, lse) = states, of_query
    weights = (_scores(query, key, rule) - lse[..., None]).exp()
    grad, out = grad.to(weights.dtype), out.to(weights.dtype)
    keys, values = (_repeated(each, query.shape[1]).to(weights.dtype) for each in (key, value))
    of_weights = grad @ values.transpose(-1, -2) - (grad * out).sum(-1, keepdim=True)
    of_scores = weights * of_weights * rule.scale
    of_keys, of_values = of_scores.transpose(-1, -2) @ query.to(weights.dtype), weights.transpose(-1, -2) @ grad
    groups = key.shape[1]
    _add(sums, (of_scores @ keys, _of_groups(of_keys, groups), _of_groups(of_values, groups)))


def _scores(query: Tensor, key: Tensor, rule: Rule) -> Tensor:
    precise = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(precise) @ _repeated(key, query.shape[1]).to(precise).transpose(-1, -2) * rule.scale
    if not rule.causal:
        return scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf)


class Together:
    """FlashAttention-2 on an NVIDIA GPU, in half precision: one call for all blocks, their tokens laid end to end."""

    def forward(self, states: Three, blocks: Blocks, rule: Rule) -> tuple[Tensor, Tensor]:
        query = states[0]
        places = _places(blocks, query.shape[2], query.device)
        made, made_lse = _flash(places.states(states), places.lengths, rule)
        out, lse = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=made_lse.dtype)
        places.put(out, made)
        places.put(lse[..., None], made_lse.T[..., None])
        return out, lse

    def backward(self, states: Three, of_query: OfQuery, sums: Three, blocks: Blocks, rule: Rule) -> None:
        if not blocks:
            return
        grad, out, lse = of_query
        places = _places(blocks, grad.shape[2], grad.device)
        ends = places.queries(lse[..., None])[..., 0].T.contiguous()
        own = OfQuery(places.queries(grad), places.queries(out), ends)
        made = _flash_backward(places.states(states), own, places.lengths, rule)
        places.add(sums[0], made[0], places.of_queries)
        for total, part in zip(sums[1:], made[1:], strict=True):
            places.add(total, part, places.of_keys)


class Lengths(NamedTuple):
    """Of sequences laid end to end: where they end [S + 1], the first of it 0, and the longest of them."""

    ends: Tensor
    key_ends: Tensor
    most: int
    most_keys: int


def _flash(states: Three, lengths: Lengths, rule: Rule) -> tuple[Tensor, Tensor]:
    """[N, H, D] and [H, N]."""
    call = torch.ops.aten._flash_attention_forward
    return call(*states, *lengths, 0.0, rule.causal, False, scale=rule.scale)[:2]


def _flash_backward(states: Three, of_query: OfQuery, lengths: Lengths, rule: Rule) -> Three:
    grad, out, lse = of_query
    unused = torch.empty(2, dtype=torch.uint64, device=grad.device)  # of dropout
    call = torch.ops.aten._flash_attention_backward
    return call(grad, *states, out, lse, *lengths, 0.0, rule.causal, unused, unused, scale=rule.scale)


class _Places:
    """Where the tokens of blocks are among all tokens [B * T], and the blocks' ends once these are laid end to end."""

    def __init__(self, blocks: Blocks, width: int, device: torch.device) -> None:
        self.of_queries = _indices([(b.row * width + b.start, b.row * width + b.end) for b in blocks], device)
        self.of_keys = _indices([(b.row * width + b.first, b.row * width + b.last) for b in blocks], device)
        queries, keys = [b.end - b.start for b in blocks], [b.last - b.first for b in blocks]
        self.lengths = Lengths(_ends(queries, device), _ends(keys, device), max(queries), max(keys))

    def states(self, states: Three) -> Three:
        return self.queries(states[0]), self.keys(states[1]), self.keys(states[2])

    def queries(self, states: Tensor) -> Tensor:
        return _flat(states).index_select(0, self.of_queries)

    def keys(self, states: Tensor) -> Tensor:
        return _flat(states).index_select(0, self.of_keys)

    def put(self, states: Tensor, found: Tensor) -> None:
        rows, places = self.of_queries // states.shape[2], self.of_queries % states.shape[2]
        states[rows, :, places] = found.to(states.dtype)

    def add(self, total: Tensor, part: Tensor, where: Tensor) -> None:
        """No token is in two blocks of one kind as a query; as a key of its prompt it is in one."""
        rows, places = where // total.shape[2], where % total.shape[2]
        total[rows, :, places] += part


@lru_cache(maxsize=8)
def _places(blocks: Blocks, width: int, device: torch.device) -> _Places:
    """The same for all layers of a pass, and moved to the device once."""
    return _Places(blocks, width, device)


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def _flat(states: Tensor) -> Tensor:
    """[B, H, T, D] to [B * T, H, D]."""
    return states.transpose(1, 2).flatten(0, 1)


def _indices(ranges: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(start, end) for start, end in ranges]).to(device)
