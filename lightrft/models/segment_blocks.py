"""Blocks of a row, what attention over one is told, and what a kernel for them does."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

Three = tuple[Tensor, Tensor, Tensor]


class Block(NamedTuple):
    """Tokens start to end of a row look at the tokens first to last of it."""

    row: int
    start: int
    end: int
    first: int
    last: int


Blocks = tuple[Block, ...]


class Rule(NamedTuple):
    """causal: a token sees those of its block up to itself, else all. scale: of the scores."""

    causal: bool
    scale: float


class OfQuery(NamedTuple):
    """What a query's tokens have beside their states; out and lse are those of all blocks joined."""

    grad: Tensor
    out: Tensor
    lse: Tensor


class Kernel(Protocol):
    """states: query [B, H, T, D], key and value [B, G, T, D]."""

    def forward(self, states: Three, blocks: Blocks, rule: Rule) -> tuple[Tensor, Tensor]:
        """out [B, H, T, D] and lse [B, H, T] in float32 or better, right where a block is."""
        ...

    def backward(self, states: Three, of_query: OfQuery, sums: Three, blocks: Blocks, rule: Rule) -> None:
        """Adds the blocks' share of the gradients to `sums`."""
        ...
