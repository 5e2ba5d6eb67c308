"""`--recompute_granularity selective`: a layer that is computed again takes attention's output from the first time.

What attention's backward pass needs is its inputs, which are computed again, and its output with the log-sum-exp of the
scores, which take as much memory as a layer's input. So the part of a layer that grows with the square of a row's
length is computed once. Nothing else in a layer is asked to be the same both times: strategies gather weights there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Made = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Layer:
    """What attention gave in a layer, in the order of its calls; whether this is its second computation."""

    kept: deque[Any] = field(default_factory=deque)
    again: bool = False


_layer: ContextVar[_Layer | None] = ContextVar("the layer that runs, where its attention is kept", default=None)


def first_and_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a layer's first computation, and around the second: a `context_fn` of torch.utils.checkpoint."""
    first = _Layer()
    return _running(first), _running(_Layer(first.kept, again=True))


@contextmanager
def _running(layer: _Layer) -> Iterator[None]:
    token = _layer.set(layer)
    try:
        yield
    finally:
        _layer.reset(token)


def once(compute: Callable[[], Made]) -> Made:
    """What it makes, or made the first time; for attention that computes its own gradients."""
    layer = _layer.get()
    if layer is None:
        return compute()
    if layer.again:
        return layer.kept.popleft()
    out, lse = compute()
    layer.kept.append((out.detach(), lse.detach()))  # `out` itself is going to hold what it was made of
    return out, lse


def kernels_once() -> AbstractContextManager[Any]:
    """Around attention whose gradients are PyTorch's: its kernel runs the first time."""
    layer = _layer.get()
    if layer is None:
        return nullcontext()
    if layer.again:
        return layer.kept.popleft()
    first, again = create_selective_checkpoint_contexts(_is_kept)
    layer.kept.append(again)
    return first


def _is_kept(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Kernels of attention. Where there is none, attention is products and a softmax, which are computed again."""
    return CheckpointPolicy.MUST_SAVE if "attention" in operation.name() else CheckpointPolicy.PREFER_RECOMPUTE
