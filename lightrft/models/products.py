"""Linear layers whose matrix products on a CPU are oneDNN's: the forward one, and both of the backward pass; and single
products for what computes its own gradients.

torch multiplies float32 matrices by MKL, which reads vectors of half the width on processors that are not Intel's:
there oneDNN is more than twice as fast. Its results differ in the last bits. Products in 16 bits are oneDNN's already.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

LEAST = 1 << 16  # elements of a weight; products of smaller ones take no longer than the call


def multiply_by_onednn(model: nn.Module, device: torch.device) -> None:
    """Its linear layers, for a model that runs on a CPU that has the kernels; names and weights stay as they are."""
    if device.type != "cpu" or not has_kernels():
        return
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDNNLinear


class OneDNNLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def is_one_product(layer: object) -> TypeGuard[nn.Linear]:
    """Whether it multiplies by a weight and adds a bias, and does nothing else: a class of its own may."""
    return isinstance(layer, nn.Linear) and type(layer).forward in (nn.Linear.forward, OneDNNLinear.forward)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs [..., I] x weight [O, I] + bias [O]: [..., O], as torch's own."""
    if _is_onednns(inputs, weight):
        return _Linear.apply(inputs, weight, bias)
    return nn.functional.linear(inputs, weight, bias)


def product(left: Tensor, right: Tensor, plus: Tensor | None = None) -> Tensor:
    """left [N, K] x right [K, M] + plus [M]: [N, M], of either of which a transposed view will do; without a graph."""
    large = max(left.numel(), right.numel(), len(left) * right.shape[1]) >= LEAST
    if large and has_kernels() and _are_onednns(left, right):
        return _product(left, right.t(), plus)
    return left @ right if plus is None else torch.addmm(plus, left, right)


@cache
def has_kernels() -> bool:
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return vectors and torch.backends.mkldnn.is_available()


def _is_onednns(inputs: Tensor, weight: Tensor) -> bool:
    return weight.numel() >= LEAST and inputs.dim() > 1 and _are_onednns(inputs, weight)


def _are_onednns(left: Tensor, right: Tensor) -> bool:
    same = left.dtype == right.dtype == torch.float32 and left.device.type == right.device.type == "cpu"
    return same and left.numel() > 0 and right.numel() > 0


def _onednns(*given: Any) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(*given)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_input, of_weight, _ = ctx.needs_input_grad  # what nobody asks for holds nothing
        ctx.save_for_backward(inputs if of_weight else None, weight if of_input else None)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, weight), (grad,), needs = ctx.saved_tensors, grads, ctx.needs_input_grad
        back = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if needs[0] else None,
            _product(back.t(), inputs.flatten(0, -2).t()) if needs[1] else None,
            back.sum(0) if needs[2] else None,
        )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left [..., K] x right [N, K] to [..., N].

    Where rows of `right` have gaps between them, or are one row many times, oneDNN takes a thousand times as long.
    """
    if not (right.is_contiguous() or right.t().is_contiguous()):
        right = right.contiguous()
    return _onednns(left, right, bias, "none", [], "")
