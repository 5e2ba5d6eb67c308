"""The log-probabilities of given tokens, and the entropy, from hidden states: the output head and its softmax in one.

Logits are made block by block, some words of some tokens. Where the head trains they are made again in the backward
pass, or the loss is foreseen and those of some tokens, or rows, are held together (foreseen.py, head_at_once.py). Where
it does not, what a unit of each score adds to the hidden states' gradient is found at once. Sums are taken in float32,
or float64 of a float64 model.

With z = logits / temperature, p = softmax(z), H the entropy, and g, e the gradients of a token's log-probability and
entropy:  dz = g * (onehot - p) - e * p * (log p + H).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightrft.models.foreseen import Foreseen
from lightrft.models.head_at_once import at_once
from lightrft.models.head_gradients import Slope, gradients
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logit_sums import totals


def fused_logprobs(blocks: Blocks, tokens: Tensor, entropy: str | None, foreseen: Foreseen | None = None) -> Tensor:
    """[N, 1] log softmax(logits / temperature)[token], or with an entropy [N, 2], it beside them.

    tokens [N]. entropy: of the whole vocabulary: "value", "gradient" for one that can be trained on, or None. foreseen:
    the loss that will be made of them, where it is known: a head that trains has its gradients sooner, and where other
    slopes come they are corrected.
    """
    b, more = blocks, (blocks.never, blocks.temperature, blocks.chunk)
    given = b.hidden, b.weight, b.bias, tokens, entropy, more
    found = _TrainedHead.apply(*given, foreseen) if _trains(b) else _FrozenHead.apply(*given)
    return torch.stack([each for each in found if each is not None], dim=-1)


def logits_held(blocks: Blocks, foreseen: Foreseen | None) -> int:
    """At a time, by `fused_logprobs`."""
    parts = None if foreseen is None or not _trains(blocks) else foreseen.parts(blocks)
    return blocks.cells if parts is None else parts.logits(blocks)


def _trains(blocks: Blocks) -> bool:
    return blocks.weight.requires_grad or (blocks.bias is not None and blocks.bias.requires_grad)


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
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        kind: str | None,
        more: Any,
        foreseen: Foreseen | None,
    ) -> tuple[Tensor, Tensor | None]:
        blocks = Blocks(hidden, weight, bias, *more)
        if foreseen is not None and (parts := foreseen.parts(blocks)) is not None:
            t, ctx.at_once = at_once(blocks, tokens, kind, foreseen.slopes, parts, ctx.needs_input_grad[:3])
        else:
            t, ctx.at_once = totals(blocks, tokens, entropy=kind is not None), None
        ctx.save_for_backward(hidden, weight, bias, tokens, t.bits, t.entropy)
        ctx.more, ctx.kind = more, kind
        if t.entropy is not None and kind != "gradient":
            ctx.mark_non_differentiable(t.entropy)
        return t.logprob, t.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, bits, entropy = ctx.saved_tensors
        learns = ctx.kind == "gradient"
        blocks, of = Blocks(hidden, weight, bias, *ctx.more), torch.stack(upstream[: 1 + learns], -1)
        slope = Slope(tokens, bits, of / blocks.temperature, entropy if learns else None)
        made, ctx.at_once = ctx.at_once, None  # they are given away, once
        find = gradients if made is None else made.corrected
        return *find(blocks, slope, ctx.needs_input_grad[:3]), None, None, None, None
