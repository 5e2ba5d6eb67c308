"""`--gradient_checkpointing`: layers that keep their input alone, and are computed again in the backward pass.

transformers' own switch looks at `training`, which also switches dropout on; here it is off, and a layer is computed
twice where a gradient is asked for: in the update, and never while sampling or scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lightrft.errors import Refused


def recompute_layers(model: nn.Module, what: str) -> None:
    """Of the language model and of what sees, each layer that the model's library can compute again.

    To be called before a strategy takes the model over: what it does around a layer (gathering its weights, casting
    its inputs) stays around both computations. Raises `Refused` for a model without such layers; what: its flag.
    """
    layers = list(_outermost(model))
    if not layers:
        raise Refused(f"--gradient_checkpointing: {what} has no layers that transformers computes again; leave it out")
    for layer in layers:
        layer.forward = _computed_twice(layer.forward)


def _outermost(module: nn.Module) -> Iterator[Any]:
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)


def _computed_twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
