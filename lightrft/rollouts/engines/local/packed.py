"""Weights laid out as a CPU's matrix products read them, once for a whole generation.

torch's own product of a few rows and a large weight lays the weight out anew at every call, which takes longer than the
product. oneDNN takes one that is laid out already; the results differ from torch's in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LEAST = 1 << 16  # elements; smaller weights gain nothing
ROWS = 32  # of the products that the layout is chosen for; others are right and hardly slower


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Lets the linear layers of `model` compute with laid out copies of their weights, where this machine can."""
    layers = [layer for layer in model.modules() if _gains(layer)]
    for layer in layers:
        layer.forward = _product(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own is there again


def _gains(layer: Any) -> bool:
    plain = isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward and "forward" not in vars(layer)
    return plain and layer.weight.numel() >= LEAST and layer.weight.device.type == "cpu" and _can(layer.weight.dtype)


def _can(dtype: torch.dtype) -> bool:
    """oneDNN is there, and its products of this dtype need no detour on this processor."""
    ops = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(ops, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return ops._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return ops._is_mkldnn_fp16_supported()
    return dtype == torch.float32


def _product(layer: Any) -> Callable[[Tensor], Tensor]:
    """As `nn.Linear.forward`, of the weight as it is now and without a graph."""
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS), layer.bias

    def forward(inputs: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")

    return forward
