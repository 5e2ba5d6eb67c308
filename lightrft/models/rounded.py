"""A model whose layers round what they read and write, to see what a lower precision would make of its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@contextmanager
def rounded(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Linear layers compute with inputs and weights of the digits of `dtype`, and all layers with weights give outputs
    of them; the weights stay what they are, however they are sharded."""
    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                for hook in _round_linear(layer, dtype):
                    hooks.callback(hook.remove)
            elif next(layer.parameters(recurse=False), None) is not None:
                hook = layer.register_forward_hook(lambda _, inputs, output: _round(output, dtype))
                hooks.callback(hook.remove)
        yield


def _round_linear(layer: nn.Linear, dtype: torch.dtype) -> Iterator[Any]:
    """Its output is computed once more, with the weight as it was read before the call: a sharded one is gone then."""
    read: list[Tensor] = []

    def before(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        read.append(_round(layer.weight, dtype))

    def after(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _round(linear(_round(inputs[0], dtype), read.pop(), layer.bias), dtype)

    yield layer.register_forward_pre_hook(before)
    yield layer.register_forward_hook(after)


def _round(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype).to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
