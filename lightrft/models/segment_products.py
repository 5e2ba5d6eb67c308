"""Attention of a long block by products of matrices, as linear layers make them (products.py).

torch's kernel for a CPU multiplies small tiles, at 85 to 95 GFLOP a second of one core where a long product takes 230.
Here some queries, of all heads that share keys, meet at once all keys that they see. Scores are in bits, as in
logit_blocks.py, and in the backward pass [keys, queries]: there the log of a query's sum is the product's bias, and a
power of 2 makes weights of them. So one product alone has a factor that has to be turned, in each direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightrft.models.products import has_kernels, product
from lightrft.models.segment_blocks import OfQuery, Rule, Three

LONG = 256  # keys of a block, and tokens; a shorter one has no gain
QUERIES, CELLS = 2048, 1 << 20  # of a product, all heads counted, and of its scores, in a processor's cache
LEAST = 256  # queries, however many keys there are
CAUSAL = 384  # queries where they see themselves: keys behind the last of them take no product, those between do
BITS = 1 / math.log(2)  # that a unit of a score is


def is_long(states: Three) -> bool:
    """Whether the block gains by it, on this device and in this precision."""
    query, key, value = states
    if query.device.type != "cpu" or value.shape != key.shape:  # as of heads whose values are narrower
        return False
    wide = min(query.shape[2], key.shape[2]) >= LONG and _shared(states) * query.shape[2] >= 2 * LONG
    return wide and query.dtype == torch.float32 and has_kernels()


def _shared(states: Three) -> int:
    """Query heads for each head of keys."""
    return states[0].shape[1] // states[1].shape[1]


class _Part(NamedTuple):
    """Some tokens of a block, in the heads that share `group`'s keys, and how many keys the last of them sees."""

    group: int
    heads: slice
    tokens: slice
    seen: int

    @property
    def length(self) -> int:
        return int(self.tokens.stop - self.tokens.start)

    def view(self, states: Tensor) -> Tensor:
        """[1, H, T, ...] to [heads, length, ...]."""
        return states[0, self.heads, self.tokens]

    def queries(self, states: Tensor) -> Tensor:
        """[1, H, T, ...] to [heads * length, ...]."""
        return self.view(states).flatten(0, 1)

    def keys(self, states: Tensor) -> Tensor:
        """[1, G, K, D] to [seen, D]."""
        return states[0, self.group, : self.seen]


def _parts(states: Three, rule: Rule) -> Iterator[_Part]:
    """In equal parts."""
    shared, tokens, keys = _shared(states), states[0].shape[2], states[1].shape[2]
    most = CAUSAL if rule.causal else min(max(CELLS // keys, LEAST), QUERIES)
    size = math.ceil(tokens / math.ceil(tokens * shared / most))
    for group in range(states[1].shape[1]):
        heads = slice(group * shared, (group + 1) * shared)
        for start in range(0, tokens, size):
            end = min(start + size, tokens)
            yield _Part(group, heads, slice(start, end), end if rule.causal else keys)


def products_forward(states: Three, rule: Rule) -> tuple[Tensor, Tensor]:
    """query [1, H, T, D], key and value [1, G, K, D], to out [1, H, T, D] and lse [1, H, T]."""
    query, key, value = states
    out, lse = torch.empty_like(query), query.new_empty(query.shape[:3])
    for part in _parts(states, rule):
        scores = product(part.queries(query) * (rule.scale * BITS), part.keys(key).t())
        _hide_later(scores.t(), part, rule, -torch.inf)
        top = scores.amax(-1, keepdim=True)
        weights = scores.sub_(top).exp2_()
        mass = weights.sum(-1, keepdim=True)
        part.view(out).copy_(product(weights, part.keys(value)).div_(mass).unflatten(0, (-1, part.length)))
        part.view(lse).copy_((top + mass.log2()).div_(BITS).view(-1, part.length))
    return out, lse


def products_backward(states: Three, of_query: OfQuery, sums: Three, rule: Rule) -> None:
    """Adds the block's share of the gradients; out and lse are those of all blocks joined."""
    query, key, value = states
    delta = (of_query.grad * of_query.out).sum(-1)
    for part in _parts(states, rule):
        keys, queries, came = part.keys(key), part.queries(query) * rule.scale, part.queries(of_query.grad)
        weights = product(keys, (queries * BITS).t(), plus=part.queries(of_query.lse) * -BITS).exp2_()
        _hide_later(weights, part, rule, 0)  # not the scores: a power of what is hidden may be infinite
        part.keys(sums[2]).add_(product(weights, came))
        of_scores = product(part.keys(value), came.t(), plus=-part.queries(delta)).mul_(weights)
        part.keys(sums[1]).add_(product(of_scores, queries))
        part.view(sums[0]).add_(product((keys * rule.scale).t(), of_scores).t().unflatten(0, (-1, part.length)))


def _hide_later(scores: Tensor, part: _Part, rule: Rule, value: float) -> None:
    """scores [seen, heads * tokens], where they see themselves: of the last keys, which are these tokens."""
    if not rule.causal:
        return
    later = torch.ones(part.length, part.length, dtype=torch.bool).tril(-1)
    scores[-part.length :].unflatten(1, (-1, part.length)).masked_fill_(later[:, None], value)
