"""A model's output head while the model runs: which positions it sees, and what it computes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightrft.errors import Refused
from lightrft.models.products import is_one_product
from lightrft.strategy.base import Handle


@contextmanager
def head_on(model: Any, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets the model's output head see only `select(hidden)` of the hidden states [B, T, H].

    A hook on the head rather than a head of our own: whatever the model does after it (scaling, soft caps) stays.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (select(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class Head:
    """What an output head computes with, as long as it is being called. never: words whose logits become -inf."""

    weight: Tensor
    bias: Tensor | None
    never: tuple[int, ...]


@contextmanager
def head_gives(model: Any, answer: Callable[[Head, Tensor], Tensor]) -> Iterator[None]:
    """Lets the model's output head compute `answer(head, its input)` when it is called. Called it must be: sharded
    weights are gathered by hooks around that."""
    head = model.get_output_embeddings()
    before = {name: vars(head)[name] for name in ("forward", "never_written") if name in vars(head)}
    never = before.get("never_written", ())
    head.forward = lambda hidden: answer(Head(head.weight, head.bias, never), hidden)
    head.never_written = ()
    try:
        yield
    finally:
        del head.forward, head.never_written
        vars(head).update(before)


@torch.no_grad()
def check_head(handle: Handle, name: str) -> None:
    """Refuses a model whose head is not one matrix and a bias, or that does something to the logits that the head
    gives: scales or caps them. `name` is the flag and its value. All processes together."""
    head = handle.model.get_output_embeddings()
    if not is_one_product(head):
        raise _not_with(name, f"its output head is a {type(head).__module__}.{type(head).__name__}, not one matrix")
    given = torch.tensor([[[-70.0, 3.0, 900.0]]], device=head.weight.device)  # caps change the large, scales all
    with head_gives(handle.model, lambda _, hidden: given + 0 * hidden.sum().to(given)):
        logits = handle.module(input_ids=torch.zeros_like(given[..., 0], dtype=torch.long), use_cache=False).logits
    if not torch.equal(logits.to(given), given):
        raise _not_with(name, "it scales or caps the logits that its output head gives")


def _not_with(name: str, fault: str) -> Refused:
    return Refused(f"--fused_linear_logprob: {name}: {fault}; leave the flag out")
