"""`--gradient_checkpointing`: layers that keep their input alone, and are computed again in the backward pass.

transformers' own switch looks at `training`, which also switches dropout on; here it is off, and a layer is computed
twice where a gradient is asked for: in the update, and never while sampling or scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lightrft.errors import Refused
from lightrft.models.attention import TAKE_SEGMENTS
from lightrft.models.attention_once import first_and_again


def recompute_layers(model: nn.Module, what: str, *, attention_once: bool = False, on_host: bool = False) -> None:
    """Of the language model and of what sees, each layer that the model's library can compute again.

    To be called before a strategy takes the model over: what it does around a layer (gathering its weights, casting
    its inputs) stays around both computations. attention_once: attention's output is kept beside a layer's input.
    on_host: the inputs wait for the backward pass in host memory. Raises as `layers_to_recompute` does.
    """
    for layer in layers_to_recompute(model, what, attention_once=attention_once):
        layer.forward = _computed_twice(layer, attention_once, on_host)


def layers_to_recompute(model: nn.Module, what: str, *, attention_once: bool) -> list[Any]:
    """Raises `Refused` for a model without such layers, or whose attention cannot be kept; what: its flag."""
    layers = list(_outermost(model))
    if not layers:
        raise Refused(f"--gradient_checkpointing: {what} has no layers that transformers computes again; leave it out")
    if attention_once and (other := _other_attention(model)):
        raise Refused(
            f"--recompute_granularity selective keeps what the attention sdpa gave, and {what} runs {other}; "
            "use --recompute_granularity full"
        )
    return layers


def _outermost(module: nn.Module) -> Iterator[Any]:
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)


def _other_attention(model: nn.Module) -> str | None:
    """The kernel of a part of the model that models/attention.py does not stand in for."""
    kernels = (getattr(getattr(part, "config", None), "_attn_implementation", None) for part in model.modules())
    return next((kernel for kernel in kernels if kernel not in (None, *TAKE_SEGMENTS)), None)


def _computed_twice(layer: nn.Module, attention_once: bool, on_host: bool) -> Callable[..., Any]:
    forward: Callable[..., Any] = layer.forward  # which may be a function that somebody has put in its place
    more: dict[str, Any] = {"context_fn": first_and_again} if attention_once else {}
    first = next(iter(signature(forward).parameters))

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or not _learns(layer, args, kwargs):
            return forward(*args, **kwargs)
        if not args and first in kwargs:  # what is kept, and moved, is what stands in a place
            args = (kwargs.pop(first),)
        with saved_tensors_hooks(_to_host, _from_host) if on_host else nullcontext():
            # No state of random numbers is kept: a layer whose dropout is off draws none.
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **more, **kwargs)

    return run


def _learns(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a gradient comes to the layer at all: below the first adapter none does, and nothing is kept there."""
    tensors = (each for each in (*args, *kwargs.values(), *layer.parameters()) if isinstance(each, Tensor))
    return any(tensor.requires_grad for tensor in tensors)


def _to_host(tensor: Tensor) -> tuple[torch.device, Tensor]:
    """Of a GPU's memory: copied when the stream gets there, and nobody waits; the stream's next user of the memory
    comes later too."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return tensor.device, host.copy_(tensor, non_blocking=True)


def _from_host(kept: tuple[torch.device, Tensor]) -> Tensor:
    device, host = kept
    return host.to(device, non_blocking=True)
