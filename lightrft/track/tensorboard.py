"""`--use_tensorboard DIR`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightrft.types import Rollout


class TensorBoard:
    """Scalars under their metric names. On resume, points beyond the checkpoint are hidden by TensorBoard itself."""

    def __init__(self, folder: Path, resumed: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resumed + 1 if resumed else None)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def rollouts(self, rollouts: Sequence[Rollout], step: int) -> None: ...

    def close(self) -> None:
        self._writer.close()
