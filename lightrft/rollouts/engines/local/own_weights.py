"""Weights of the engine's own, in another precision than the trainer's (`--engine_dtype`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightrft.models.fingerprint import fingerprint
from lightrft.strategy.base import named_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OwnWeights:
    """A second model whose tensors are filled in place, one after another.

    load: the model of `--pretrain` in `dtype`, called once. A tied tensor is held, and filled, once.
    """

    def __init__(self, load: Callable[[], PreTrainedModel], dtype: torch.dtype) -> None:
        self.model, self.dtype, self.filled = load(), dtype, False
        self.shapes: dict[str, torch.Size] | None = None  # of what was given back

    @contextmanager
    def whole(self) -> Iterator[PreTrainedModel]:
        assert self.filled, "an engine that has given its weights back gets new ones before it generates"
        yield self.model

    def fill(self, params: Iterable[tuple[str, Tensor]]) -> None:
        """Every tensor of the model anew; one that is not among `params` would be stale."""
        tensors, done = self.model.state_dict(keep_vars=True), set[int]()  # tied ones under each of their names
        for name, value in params:
            target = tensors[name]
            if id(target) not in done:
                target.data.copy_(value)
                done.add(id(target))
        stale = [name for name, tensor in tensors.items() if id(tensor) not in done]
        assert not stale, f"the engine got no {stale[0]}"
        self.filled = True

    def fingerprints(self) -> dict[tuple[str, ...], int]:
        return {(name,): fingerprint(tensor) for name, tensor in named_tensors(self.model)}

    def give_back(self) -> None:
        """The memory of all parameters; buffers are small, and some are in no file."""
        if self.shapes is None:
            self.shapes, self.filled = {name: value.shape for name, value in self.model.named_parameters()}, False
            for value in self.model.parameters():
                value.data = value.new_empty(0)

    def take(self) -> None:
        if self.shapes is not None:
            for name, value in self.model.named_parameters():
                value.data = value.new_empty(self.shapes[name])
            self.shapes = None
