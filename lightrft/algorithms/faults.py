"""Faults of an estimator's file of the user's own: one line each, which names the function, the error and its line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused, RunFailed, is_out_of_memory
from lightrft.user_code.module import cause, with_helpers

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.algorithms.estimator import Advantages, TokenLoss


def guarded(module: ModuleType, label: str, function: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """`function` of the own `module`; RunFailed, which begins with `label`, where it fails or returns no sound `kind`.

    kind: Advantages, made of a batch, or TokenLoss, made of log-probabilities.
    """
    called, checks = with_helpers(module, function), {"Advantages": _of_advantages, "TokenLoss": _of_loss}

    @wraps(function)
    def in_one_line(*given: Any, **named: Any) -> Any:
        try:
            found = called(*given, **named)
        except (Exception, SystemExit) as error:
            if isinstance(error, (Refused, RunFailed)) or is_out_of_memory(error):
                raise
            raise RunFailed(f"{label} failed: {cause(error, module)}") from error
        if not isinstance(found, kind):
            raise RunFailed(
                f"{label} returned {type(found).__name__}, not lightrft.algorithms.estimator.{kind.__name__}"
            )
        for fault in checks[kind.__name__](found, *given):
            raise RunFailed(f"{label}: {fault}")
        return found

    return in_one_line


def _of_advantages(found: Advantages, batch: Any, *_: Any) -> Iterator[str]:
    shape = tuple(batch.response_mask.shape)
    yield from _shaped("advantages", found.advantages, shape)
    yield from _shaped("valid", found.valid, shape[:1])
    if found.returns is not None:
        yield from _shaped("returns", found.returns, shape)
    for name, value in found.metrics.items():
        if not isinstance(value, Real):
            yield f"its metric {name} is {type(value).__name__}, not a number; float(...) makes one of a tensor"


def _of_loss(found: TokenLoss, logprobs: Tensor, *_: Any) -> Iterator[str]:
    shape = tuple(logprobs.shape)
    yield from _shaped("loss", found.loss, shape)
    if logprobs.requires_grad and not found.loss.requires_grad:
        yield "its loss has no gradient: nothing in it depends on logprobs but through detach() or no_grad()"
    yield from _all_shaped(found.metrics, shape)
    yield from _all_shaped(found.row_metrics, shape[:1])


def _all_shaped(metrics: Mapping[str, Any], shape: Sequence[int]) -> Iterator[str]:
    for name, values in metrics.items():
        yield from _shaped(f"metric {name}", values, shape)


def _shaped(name: str, values: Any, shape: Sequence[int]) -> Iterator[str]:
    """What is wrong with the tensor: it broadcasts to no other shape, which would count numbers more than once."""
    named, expected = ("[B, T]" if len(shape) == 2 else "[B]"), list(shape)
    got = list(values.shape) if hasattr(values, "shape") else type(values).__name__
    if got != expected:
        yield f"its {name} is {got}, not {named} = {expected}"
