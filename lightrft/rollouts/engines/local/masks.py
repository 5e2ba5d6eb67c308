"""What the tokens of the rows that are decoded were drawn from (`Sampling.returns_mask`)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lightrft.types import SamplingMask

NOTHING_LEFT_OUT = np.zeros(0, dtype=np.intc)


class Masks:
    """A `SamplingMask` in the making for each row. What a device has drawn waits there until `settle`, which waits for
    the device: at most so many tokens a row as lie between two looks at which rows have ended."""

    def __init__(self, rows: int) -> None:
        self.rows = [SamplingMask(array("i"), array("i")) for _ in range(rows)]
        self.waiting: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def put(self, rows: Sequence[int]) -> None:
        """These rows begin anew."""
        for row in rows:
            self.take(row)

    def take(self, row: int) -> SamplingMask:
        """Of what was settled; the row begins anew."""
        mask, self.rows[row] = self.rows[row], SamplingMask(array("i"), array("i"))
        return mask

    def keep(self, rows: Sequence[int]) -> None:
        """These rows alone, in this order."""
        self.rows = [self.rows[row] for row in rows]

    def note(self, places: Tensor, goes_on: Tensor, kept: Tensor | None) -> None:
        """The next token of the rows at places [b] that go on, [b] bool, and what it was drawn from, [b, V] bool; None:
        all of the vocabulary."""
        self.waiting.append((places, goes_on, kept))

    def settle(self) -> None:
        """Books what was noted. Rows change their places only after that."""
        waiting, self.waiting = self.waiting, []
        for places, goes_on, kept in waiting:
            rows = places[goes_on].tolist()
            sets = [NOTHING_LEFT_OUT] * len(rows) if kept is None else _sets(kept[goes_on])
            for row, ids in zip(rows, sets, strict=True):
                self.rows[row].sizes.append(len(ids))
                self.rows[row].ids.frombytes(ids.tobytes())


def _sets(kept: Tensor) -> list[np.ndarray]:
    """kept [b, V] to the ids of each row. On a CPU by NumPy, which is several times faster at it."""
    rows, vocabulary = kept.shape
    on_cpu = kept.device.type == "cpu"
    places = np.flatnonzero(kept.numpy()) if on_cpu else kept.flatten().nonzero()[:, 0].cpu().numpy()
    ends = np.searchsorted(places, vocabulary * np.arange(1, rows))
    sets = np.split((places % vocabulary).astype(np.intc), ends)[:rows]
    return [ids if len(ids) < vocabulary else NOTHING_LEFT_OUT for ids in sets]
