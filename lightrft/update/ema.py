"""A moving average of the policy's weights (`--enable_ema`), which nothing samples from: it is saved and exported."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lightrft.ranks.base import Ranks
from lightrft.strategy.base import Handle, Strategy, without_adapters
from lightrft.strategy.state import AVERAGE


class MovingAverage:
    """average_0 = weights_0 and average_t = beta average_{t-1} + (1 - beta) weights_t, t counting the steps taken.

    In float32, of the weights as the optimizer steps them. Each rank averages what it owns of them and keeps that
    beside them, on the device or on the host.
    """

    def __init__(self, strategy: Strategy, handle: Handle, beta: float, everyone: Ranks) -> None:
        self.strategy, self.handle, self.beta, self.everyone = strategy, handle, beta, everyone
        handle.average = tuple(
            replace(held, kind=AVERAGE, values=held.values.detach().to(torch.float32, copy=True))
            for held in strategy.trained(handle)
        )

    @torch.no_grad()
    def update(self) -> None:
        """After every optimizer step that was taken."""
        for average, weights in zip(self.handle.average, self.strategy.trained(self.handle), strict=True):
            average.values.lerp_(weights.values, 1 - self.beta)

    def params(self) -> Iterator[tuple[str, Tensor]]:
        """As `Strategy.full_params`: whole, one at a time, and what does not train as it is."""
        return without_adapters(self.handle, self.tensors())

    def tensors(self, names: Container[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """As `Strategy.tensors`. The average of adapters is that of each of their matrices."""
        trained = {name for name, parameter in self.handle.model.named_parameters() if parameter.requires_grad}
        for name, value in self.strategy.tensors(self.handle, names):
            yield name, self._whole(name, value) if name in trained else value

    def _whole(self, name: str, like: Tensor) -> Tensor:
        """Of the shape of `like`: every rank adds what it owns of it to zeros."""
        found = torch.zeros(like.numel(), device=like.device)
        for held in self.handle.average:
            if held.name == name:
                piece = held.own_piece()
                found[piece.start : piece.start + len(piece.values)] = piece.values.to(like.device)
        return self.everyone.reduce({name: found})[name].view(like.shape)
