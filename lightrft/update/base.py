"""What the update asks of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.batch import Batch


class Watch(Protocol):
    """Compares the engine with the trainer while both are of one policy: before the first optimizer step of a turn."""

    def see(self, batch: Batch, gaps: Tensor, compared: Tensor, turn: int) -> None:
        """A micro-batch: |trainer - engine| of its log-probabilities, where `compared` is 1, both [B, T]."""
        ...

    def judge(self, turn: int) -> None:
        """When all micro-batches of an optimizer step were seen, and before the policy changes. Every rank asks."""
        ...
