"""A model whose layers round what they read and write, to see what a lower precision would make of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@contextmanager
def rounded(model: nn.Module, dtype: torch.dtype, scale: float = 1.0) -> Iterator[None]:
    """Linear layers compute with inputs and weights of the digits of `dtype`, and all layers with weights give outputs
    of them; the weights stay what they are, however they are sharded.

    scale: what is rounded is this many times the numbers, so that another scale makes other errors of the same size.
    """

    def to_digits(value: Any) -> Any:
        return _round(value, dtype, scale)

    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                for hook in _round_linear(layer, to_digits):
                    hooks.callback(hook.remove)
            elif next(layer.parameters(recurse=False), None) is not None:
                hook = layer.register_forward_hook(lambda _, inputs, output: to_digits(output))
                hooks.callback(hook.remove)
        yield


def _round_linear(layer: nn.Linear, to_digits: Callable[[Any], Any]) -> Iterator[Any]:
    """Its output is computed once more, with the weight as it was read before the call: a sharded one is gone then."""
    read: list[Tensor] = []

    def before(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        read.append(to_digits(layer.weight))

    def after(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return to_digits(linear(to_digits(inputs[0]), read.pop(), layer.bias))

    yield layer.register_forward_pre_hook(before)
    yield layer.register_forward_hook(after)


def _round(value: Any, dtype: torch.dtype, scale: float) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return (value * scale).to(dtype).to(value.dtype) / scale
