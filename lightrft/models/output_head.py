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

GIVEN = [[[-70.0, 3.0, 900.0]]]  # logits of three words: caps change the large, scales all


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
    device = _one_matrix(handle.model, name).device
    given = torch.tensor(GIVEN, device=device)
    with head_gives(handle.model, lambda _, hidden: given + 0 * hidden.sum().to(given)):
        logits = handle.module(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False).logits
    _check_kept(logits.to(given), given, name)


@torch.no_grad()
def check_described_head(model: Any, name: str) -> None:
    """The same of a model without weights, as far as it runs: one that decides by its numbers what it computes does
    not, and is asked once it has them, as is one whose logits have none: they are not those that were given."""
    device, given = _one_matrix(model, name).device, torch.tensor(GIVEN)
    ids, sees = torch.zeros(1, 1, dtype=torch.long, device=device), torch.ones(1, 1, 1, 1, device=device)
    with head_gives(model, lambda *_: given):
        try:
            logits = model(input_ids=ids, attention_mask=sees, use_cache=False).logits  # else a mask is made of numbers
        except Exception:  # what a model's own code raises where there are no numbers
            return
    if not logits.is_meta:
        _check_kept(logits, given, name)


def _one_matrix(model: Any, name: str) -> Tensor:
    head = model.get_output_embeddings()
    if not is_one_product(head):
        raise _not_with(name, f"its output head is a {type(head).__module__}.{type(head).__name__}, not one matrix")
    return head.weight


def _check_kept(logits: Tensor, given: Tensor, name: str) -> None:
    if not torch.equal(logits, given):
        raise _not_with(name, "it scales or caps the logits that its output head gives")


def _not_with(name: str, fault: str) -> Refused:
    return Refused(f"--fused_linear_logprob: {name}: {fault}; leave the flag out")
