"""A loss that is known before the scores that it is of, and which tokens' logits are therefore held together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightrft.models.logit_blocks import Blocks

HELD = 320  # tokens; with more the weight's gradient is read and written less often, and more logits are held
HELD_ROW = 1024  # of a row that is held by itself, and so is no more than a quarter of all

Slopes = Callable[[Tensor], Tensor]
"""Of scores [N, 1], log-probabilities, or [N, 2], entropies beside them: what a unit of each adds to the loss, [N, 1],
or [N, 2] where entropies learn. Right for the tokens whose scores are known; the others' are 0, and nobody reads their
slopes."""


@dataclass(frozen=True)
class Parts:
    """Tokens that are known together, in their order. held: those of the longest part whose logits are held."""

    slices: list[slice]
    held: int

    def is_held(self, part: slice) -> bool:
        return length(part) <= self.held

    def logits(self, blocks: Blocks) -> int:
        """The most that are held at a time."""
        others = [blocks.of(part).cells for part in self.slices if not self.is_held(part)]
        return max(self.held * len(blocks.weight), *others, 0)


@dataclass(frozen=True)
class Foreseen:
    """rows [B]: how many of the tokens each row has, where a token's slope follows from the scores of its row; None
    where it follows from its own."""

    slopes: Slopes
    rows: Tensor | None = None

    def parts(self, blocks: Blocks) -> Parts | None:
        """None where logits are better made twice: on a device, which would be asked for values; in 16 bits, since sums
        over tokens are made in the weight's own dtype; and where most of the tokens are in rows too long to be held."""
        if blocks.hidden.device.type != "cpu" or blocks.weight.dtype != blocks.dtype:
            return None
        tokens, most = len(blocks.hidden), min(blocks.chunk, HELD)
        if self.rows is None:
            slices = _equal(tokens, most)
            return Parts(slices, max(map(length, slices)))
        slices, longest = _of_whole_rows(self.rows.tolist(), most), min(max(tokens // 4, HELD), HELD_ROW, blocks.chunk)
        held = [length(part) for part in slices if length(part) <= longest]
        return Parts(slices, max(held, default=0)) if 2 * sum(held) >= tokens else None


def length(part: slice) -> int:
    return int(part.stop - part.start)


def _equal(tokens: int, most: int) -> list[slice]:
    """A few that are left over would read the weight's gradient as often as all."""
    size = math.ceil(max(tokens, 1) / math.ceil(max(tokens, 1) / most))
    return [slice(start, min(start + size, tokens)) for start in range(0, max(tokens, 1), size)]


def _of_whole_rows(rows: Sequence[int], most: int) -> list[slice]:
    """As many together as fit, and a longer one alone."""
    parts = [slice(0, 0)]
    for row in filter(None, rows):
        start, end = parts[-1].start, parts[-1].stop
        if start < end and end + row - start > most:
            parts.append(slice(end, end + row))
        else:
            parts[-1] = slice(start, end + row)
    return parts
