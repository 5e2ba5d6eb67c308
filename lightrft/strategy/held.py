"""What a rank holds of a model and its optimizer, as live tensors: what is saved from, and what is loaded into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightrft.strategy.base import Weights
from lightrft.strategy.state import AVERAGE, WEIGHT, Piece

STEP = "step"  # torch's optimizers and DeepSpeed's call it so


@dataclass(frozen=True)
class Held:
    """A live range of a tensor of `shape`: `values` is a 1-D view of it, from element `start` on.

    copy, copies: which of so many ranks this is that hold the same. Each of them writes its share.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    start: int
    values: Tensor
    copy: int = 0
    copies: int = 1

    def own_piece(self) -> Piece:
        """A copy, in host memory, of what this rank writes; maybe of no elements."""
        first, last = (len(self.values) * place // self.copies for place in (self.copy, self.copy + 1))
        values = self.values.detach()[first:last].to("cpu", copy=True)
        return Piece(self.kind, self.name, self.shape, self.start + first, values)


def own_pieces(held: Iterable[Held]) -> list[Piece]:
    return [piece for piece in (each.own_piece() for each in held) if len(piece.values)]


@torch.no_grad()
def fill(held: Iterable[Held], reader: Weights) -> None:
    """From the files, in whatever precision each tensor is held. Moments of what was never updated are 0; an average
    that the files do not have begins at the weights."""
    for each in held:
        kind = WEIGHT if each.kind == AVERAGE and not reader.has(AVERAGE, each.name) else each.kind
        if kind not in (WEIGHT, AVERAGE) and each.name not in reader.steps:
            each.values.zero_()
        elif len(each.values):
            each.values.copy_(reader.read(kind, each.name, each.start, len(each.values)))


def fill_weights(held: Iterable[Held], weights: Weights) -> None:
    """Those that the files have; the others are there already."""
    fill((each for each in held if weights.has(WEIGHT, each.name)), weights)


def moments(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Of an optimizer's state of one parameter, all but its step."""
    yield from ((kind, value) for kind, value in state.items() if kind != STEP)


def steps_of(state: Mapping[str, Any]) -> int | None:
    """How often the optimizer has updated what the state is of; None for an optimizer without a state."""
    return int(state[STEP]) if STEP in state else None


def set_steps(state: dict[str, Any], steps: int) -> None:
    """torch counts in a tensor, DeepSpeed's own optimizers in an integer."""
    if isinstance(state.get(STEP), Tensor):
        state[STEP].fill_(steps)
    elif STEP in state:
        state[STEP] = steps
