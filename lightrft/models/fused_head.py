"""The log-probabilities of given tokens, and the entropy, from hidden states: the output head and its softmax in one.

No array of [tokens, vocabulary] is ever held: logits are made block by block. Where the head trains they are made again
in the backward pass: one more product of matrices, in place of many trips of large arrays through memory. Where it does
not, what a unit of each score adds to the hidden states' gradient is found at once. Sums are taken in float32, or
float64 of a float64 model.

With z = logits / temperature, p = softmax(z), H the entropy, and g, e the gradients of a token's log-probability and
entropy:  dz = g * (onehot - p) - e * p * (log p + H).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightrft.models.logit_blocks import LEAST, LN_2, Blocks, own_words
from lightrft.models.logit_sums import totals
from lightrft.models.products import product


def fused_logprobs(blocks: Blocks, tokens: Tensor, entropy: str | None) -> Tensor:
    """[N, 1] log softmax(logits / temperature)[token], or with an entropy [N, 2], it beside them.

    tokens [N]. entropy: of the whole vocabulary: "value", "gradient" for one that can be trained on, or None.
    """
    b, more = blocks, (blocks.never, blocks.temperature, blocks.chunk)
    trains = b.weight.requires_grad or (b.bias is not None and b.bias.requires_grad)
    function = _TrainedHead if trains else _FrozenHead
    found = function.apply(b.hidden, b.weight, b.bias, tokens, entropy, more)
    return torch.stack([each for each in found if each is not None], dim=-1)


class _FrozenHead(torch.autograd.Function):
    """Hidden states alone may have a gradient, and it is a sum of two directions of each token."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, kind: str | None, more: Any
    ) -> tuple[Tensor, Tensor | None]:
        learns = ctx.needs_input_grad[0]
        blocks, trained = Blocks(hidden, weight, bias, *more), learns and kind == "gradient"
        t = totals(blocks, tokens, entropy=kind is not None, pull=learns, lean=trained)
        ctx.trained, ctx.dtype = trained, hidden.dtype
        if t.entropy is not None and not trained:
            ctx.mark_non_differentiable(t.entropy)
        if t.pull is not None:
            directions = [weight[tokens] - t.pull]
            if t.lean is not None and t.entropy is not None:
                directions.append(-(t.lean + t.entropy[:, None] * t.pull))
            ctx.save_for_backward(*(direction / blocks.temperature for direction in directions))
        return t.logprob, t.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(upstream, ctx.saved_tensors, strict=ctx.trained)
        hidden = torch.stack([slope[:, None] * direction for slope, direction in pairs]).sum(0)
        return hidden.to(ctx.dtype), None, None, None, None, None


class _TrainedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, kind: str | None, more: Any
    ) -> tuple[Tensor, Tensor | None]:
        t = totals(Blocks(hidden, weight, bias, *more), tokens, entropy=kind is not None)
        ctx.save_for_backward(hidden, weight, bias, tokens, t.bits, t.entropy)
        ctx.more, ctx.kind = more, kind
        if t.entropy is not None and kind != "gradient":
            ctx.mark_non_differentiable(t.entropy)
        return t.logprob, t.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, bits, entropy = ctx.saved_tensors
        blocks = Blocks(hidden, weight, bias, *ctx.more)
        slope = _Slope(tokens, bits, upstream[0] / blocks.temperature)
        if ctx.kind == "gradient":
            slope = _Slope(tokens, bits, slope.logprob, upstream[1] / blocks.temperature, entropy)
        return *_gradients_of_all(blocks, slope, ctx.needs_input_grad[:3]), None, None, None


@dataclass(frozen=True)
class _Slope:
    """tokens and bits [N]; logprob, entropy [N]: what a unit of each adds to the loss, over the temperature; values: of
    the entropy."""

    tokens: Tensor
    bits: Tensor
    logprob: Tensor
    entropy: Tensor | None = None
    values: Tensor | None = None

    @property
    def rows(self) -> Tensor | None:
        """Those with a slope, or a number that must not be hidden; None = all of them. A device is not asked."""
        if self.logprob.device.type != "cpu":
            return None
        moves = (self.logprob != 0) | ~self.bits.isfinite()
        moves = moves if self.entropy is None else moves | (self.entropy != 0)
        return None if bool(moves.all()) else moves.nonzero()[:, 0]

    def at(self, rows: Tensor) -> _Slope:
        entropy, values = (None if each is None else each[rows] for each in (self.entropy, self.values))
        return _Slope(self.tokens[rows], self.bits[rows], self.logprob[rows], entropy, values)

    @property
    def of_rows(self) -> Tensor:
        """[N], by which rows of `of_logits` have still to be multiplied: the log-probability's slope, where it is all."""
        return self.logprob if self.entropy is None else torch.ones_like(self.logprob)

    def of_logits(self, z: Tensor, rows: slice, words: slice) -> Tensor:
        """-dz of a block [v, n] of log2 p, in its place, but for `of_rows`."""
        (inside, places), own = own_words(self.tokens[rows], words), torch.ones_like(self.bits[rows])
        if self.entropy is None or self.values is None:
            dz = z.exp2_()
        else:
            own, e = self.logprob[rows], self.entropy[rows]
            weights = torch.addcmul(own + e * self.values[rows], z.clamp_(min=LEAST), e, value=LN_2)
            dz = z.exp2_().mul_(weights)
        dz[places, torch.arange(dz.shape[1], device=dz.device)] -= torch.where(inside, own, 0)
        return dz


def _gradients_of_all(blocks: Blocks, slope: _Slope, needed: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
    """Tokens without a slope (clipped, or not of high entropy where only those train) take no products."""
    rows = slope.rows
    if rows is None:
        return _gradients(blocks, slope, needed)
    own, *others = _gradients(replace(blocks, hidden=blocks.hidden[rows]), slope.at(rows), needed)
    return None if own is None else torch.zeros_like(blocks.hidden).index_copy(0, rows, own), *others


def _gradients(blocks: Blocks, slope: _Slope, needed: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
    """Of hidden, weight and bias, where they are needed."""
    hidden = torch.zeros_like(blocks.hidden, dtype=blocks.dtype) if needed[0] else None
    weight = torch.empty_like(blocks.weight) if needed[1] else None
    bias = torch.empty_like(blocks.bias) if needed[2] and blocks.bias is not None else None
    factors = -slope.of_rows
    multiplied = (factors[:, None] * blocks.hidden).to(blocks.hidden.dtype)
    for words in blocks.words():
        own: Tensor | None = None
        shift: Tensor | None = None
        for rows in blocks.rows():
            dz = slope.of_logits(blocks.logits(rows, words, slope.bits[rows]), rows, words)
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
