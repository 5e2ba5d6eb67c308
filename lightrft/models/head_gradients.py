"""Gradients of a head's hidden states, weight and bias, from the slopes of the loss to each token's scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightrft.models.logit_blocks import LEAST, LN_2, Blocks
from lightrft.models.products import product

Needed = tuple[bool, bool, bool]  # the gradients of hidden states, weight and bias
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]  # these, where they are needed


@dataclass(frozen=True)
class Slope:
    """tokens [N]; bits [N]: log sum exp of all logits over the temperature, in bits; of [N, 1] or [N, 2]: what a unit
    of the log-probability, and of an entropy that learns, adds to the loss, over the temperature; entropy [N]: its
    values, where it learns."""

    tokens: Tensor
    bits: Tensor
    of: Tensor
    entropy: Tensor | None

    @property
    def rows(self) -> Tensor | None:
        """Those with a slope, or a number that must not be hidden; None = all of them. A device is not asked."""
        if self.of.device.type != "cpu":
            return None
        moves = (self.of != 0).any(-1) | ~self.bits.isfinite()
        return None if bool(moves.all()) else moves.nonzero()[:, 0]

    def at(self, rows: Tensor) -> Slope:
        entropy = None if self.entropy is None else self.entropy[rows]
        return Slope(self.tokens[rows], self.bits[rows], self.of[rows], entropy)

    @property
    def factors(self) -> Tensor:
        """[N], by which what `of_logits` gives has still to be multiplied: by the slope, where there is one alone."""
        return -self.of[:, 0] if self.entropy is None else -torch.ones_like(self.of[:, 0])

    def of_logits(self, z: Tensor, rows: slice, is_here: Tensor, places: Tensor) -> Tensor:
        """dz of a block [words, rows] of log2 p, over `factors`, in its place. is_here, places: whether the own words
        of tokens are among these, and where."""
        if self.entropy is None:
            dz, own = z.exp2_(), torch.ones_like(self.bits[rows])
        else:
            own, e = self.of[rows].unbind(-1)
            weights = torch.addcmul(own + e * self.entropy[rows], z.clamp_(min=LEAST), e, value=LN_2)
            dz = z.exp2_().mul_(weights)
        dz[places, torch.arange(dz.shape[1], device=dz.device)] -= torch.where(is_here, own, 0)
        return dz


def gradients(blocks: Blocks, slope: Slope, needed: Needed) -> Gradients:
    """Of all tokens, whose logits are made again; tokens without a slope (clipped, or not of high entropy where only
    those train) take no products."""
    rows = slope.rows
    if rows is None:
        return _of_all(blocks, slope, needed)
    own, weight, bias = _of_all(replace(blocks, hidden=blocks.hidden[rows]), slope.at(rows), needed)
    return None if own is None else torch.zeros_like(blocks.hidden).index_copy(0, rows, own), weight, bias


def _of_all(blocks: Blocks, slope: Slope, needed: Needed) -> Gradients:
    """Word by word, so that sums over tokens are in float32 and no more is held of them than a block."""
    hidden = torch.zeros_like(blocks.hidden, dtype=blocks.dtype) if needed[0] else None
    weight = torch.empty_like(blocks.weight) if needed[1] else None
    bias = torch.empty_like(blocks.bias) if needed[2] and blocks.bias is not None else None
    factors = slope.factors
    multiplied = (factors[:, None] * blocks.hidden).to(blocks.hidden.dtype)
    for words in blocks.words():
        own: Tensor | None = None
        shift: Tensor | None = None
        for rows in blocks.rows():
            z = blocks.logits(rows, words, slope.bits[rows])
            dz = slope.of_logits(z, rows, *blocks.own_words(slope.tokens[rows], words))
            shift = _plus(shift, torch.mv(dz, factors[rows])) if bias is not None else None
            dz = dz.to(blocks.hidden.dtype)
            if hidden is not None:
                hidden[rows] += product(dz.t(), blocks.weight[words])
            if weight is not None:
                own = _plus(own, product(dz, multiplied[rows]).to(blocks.dtype))
            del dz  # before the next block is made
        if weight is not None and own is not None:
            weight[words] = own
        if bias is not None and shift is not None:
            bias[words] = shift
    return None if hidden is None else hidden.mul_(factors[:, None]).to(blocks.hidden.dtype), weight, bias


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)
