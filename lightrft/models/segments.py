"""Attention over rows that hold several sequences: each token sees its own sequence, and a prompt that it continues.

A row is a list of trees: a prompt and the responses to it, one behind the other. What a token sees is computed in
blocks, so nothing is as large as the row's square, and nothing is computed that a mask would hide: the prompt with its
first response, and every other response, are causal blocks; those others look at the whole prompt in one more block.
Their two parts are joined by their log-sum-exp, as in FlashAttention-2 (arXiv:2307.08691) and ring attention
(arXiv:2310.01889), and so are the gradients: a block's backward with the joined output and log-sum-exp is its share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from lightrft.models.attention_once import once
from lightrft.models.segment_blocks import Block, Blocks, Kernel, OfQuery, Rule, Three
from lightrft.models.segment_kernels import kernel_for


@dataclass(frozen=True)
class Tree:
    """A prompt's length, and those of its responses; a sequence of its own is one with a single response."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def length(self) -> int:
        return self.prompt + sum(self.responses)

    @property
    def pairs(self) -> float:
        """Of tokens that see each other."""
        first, *others = self.responses
        return (self.prompt + first) ** 2 / 2 + sum(length * (self.prompt + length / 2) for length in others)


@dataclass(frozen=True)
class Segments:
    """The trees of each row, from its first token on, and the rows' width. What is behind them is padding."""

    rows: tuple[tuple[Tree, ...], ...]
    width: int

    @cached_property
    def causal(self) -> Blocks:
        """Each token sees those of its block up to itself."""
        return tuple(Block(row, start, end, start, end) for row, start, end in self._causal())

    @cached_property
    def prompts(self) -> Blocks:
        """All responses to a prompt but the first, which see the whole of it."""
        found = []
        for row, start, tree in self._trees():
            first = start + tree.prompt + tree.responses[0]
            if tree.prompt and first < start + tree.length:
                found.append(Block(row, first, start + tree.length, start, start + tree.prompt))
        return tuple(found)

    def _trees(self) -> Iterator[tuple[int, int, Tree]]:
        for row, trees in enumerate(self.rows):
            start = 0
            for tree in trees:
                yield row, start, tree
                start += tree.length

    def _causal(self) -> Iterator[tuple[int, int, int]]:
        """With the padding, which sees itself: every token has an output."""
        ends = [0] * len(self.rows)
        for row, start, tree in self._trees():
            lengths = (tree.prompt + tree.responses[0], *tree.responses[1:])
            for length in filter(None, lengths):
                yield row, start, start + length
                start += length
            ends[row] = start
        yield from ((row, end, self.width) for row, end in enumerate(ends) if end < self.width)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """query [B, H, T, D], key and value [B, G, T, D], H a multiple of G, to [B, H, T, D].

    softmax(scale * q k) v over what each token sees; scale: None = 1 / sqrt(D).
    """
    found: Any = _InBlocks.apply(query, key, value, segments, query.shape[-1] ** -0.5 if scale is None else scale)
    return found


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
        kernel, states = kernel_for(query, key), (query, key, value)
        out, lse = once(partial(_joined, kernel, states, segments, scale))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.kernel, ctx.segments, ctx.scale = kernel, segments, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (*states, out, lse), (kernel, segments) = ctx.saved_tensors, (ctx.kernel, ctx.segments)
        dtype = out.dtype  # a prompt's gradient is a sum over its responses: in float32 or better
        sums = tuple(torch.zeros_like(each, dtype=torch.promote_types(dtype, torch.float32)) for each in states)
        of_query = OfQuery(grads[0], out, lse)
        kernel.backward(states, of_query, sums, segments.causal, Rule(causal=True, scale=ctx.scale))
        kernel.backward(states, of_query, sums, segments.prompts, Rule(causal=False, scale=ctx.scale))
        return (*(each.to(dtype) for each in sums), None, None)


def _joined(kernel: Kernel, states: Three, segments: Segments, scale: float) -> tuple[Tensor, Tensor]:
    """out [B, H, T, D] and lse [B, H, T] over all that a token sees."""
    out, lse = kernel.forward(states, segments.causal, Rule(causal=True, scale=scale))
    if segments.prompts:
        more = kernel.forward(states, segments.prompts, Rule(causal=False, scale=scale))
        _join(out, lse, *more, segments.prompts)
    return out, lse


def _join(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor, blocks: Blocks) -> None:
    """Two parts of one softmax, in place in the first, where the second has some: out [B, H, T, D], lse [B, H, T]."""
    for row, start, end, *_ in blocks:
        first, second = lse[row, :, start:end], more_lse[row, :, start:end]
        own, other = (each[row, :, start:end].to(lse.dtype) for each in (out, more))
        share = (second - first).sigmoid()[..., None]  # two shares that sum to 1, however large the scores are
        out[row, :, start:end] = torch.lerp(own, other, share)
        lse[row, :, start:end] = torch.logaddexp(first, second)
