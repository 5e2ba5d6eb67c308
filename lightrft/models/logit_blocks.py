"""The logits of an output head, block by block: some words by some tokens, small enough to stay in a processor's cache,
and their sums over the vocabulary.

A block is [words, tokens], and its numbers are in bits: logits / (temperature * ln 2), less a number of each token,
which the product of matrices takes off as its bias. So exponentials are powers of 2 of what the product gives: torch's
exp is MKL's on a CPU, which on an AMD processor takes four times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lightrft.models.products import product

CELLS = 1 << 19  # logits of a block, 2 MiB: in a processor's cache
CELLS_OF_DEVICES = 1 << 25  # 128 MiB, where launches cost
NARROWEST = 256  # words of a block: below it products of matrices are slow
LEAST = -1e4  # bits of a word that is never written: 2 to it is 0, in float64 too, and so is its product with it
LN_2 = math.log(2)


@dataclass(frozen=True)
class Blocks:
    """The logits of N tokens and V words of a head, of `chunk` tokens at most at a time. weight [V, H], bias [V] or
    None.

    never: words whose logits are -inf.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    never: tuple[int, ...]
    temperature: float
    chunk: int

    def of(self, rows: slice) -> Blocks:
        """Of these tokens alone."""
        return replace(self, hidden=self.hidden[rows])

    @property
    def dtype(self) -> torch.dtype:
        """Of logits and sums."""
        return torch.promote_types(self.hidden.dtype, torch.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and words of the largest block."""
        rows = min(self.chunk, max(len(self.hidden), 1))
        cells = CELLS if self.hidden.device.type == "cpu" else CELLS_OF_DEVICES
        return rows, min(max(cells // rows, NARROWEST), len(self.weight))

    def rows(self) -> Iterator[slice]:
        """Of tokens; one of no row, where there is none."""
        return _slices(len(self.hidden), self.shape[0])

    def words(self) -> Iterator[slice]:
        return _slices(len(self.weight), self.shape[1])

    @property
    def cells(self) -> int:
        """Of the largest block: logits that are held at a time."""
        rows, words = self.shape
        return rows * words

    @property
    def bits(self) -> float:
        """That a unit of a logit is."""
        return 1 / (self.temperature * LN_2)

    @cached_property
    def _in_bits(self) -> Tensor:
        """Hidden states whose products with words are bits; 16 bits would round them once more."""
        return self.hidden * self.bits if self.hidden.dtype == self.dtype else self.hidden

    def logits(self, rows: slice, words: slice, less: Tensor) -> Tensor:
        """[words, rows] in bits, less [rows]; the caller's to overwrite."""
        if self.hidden.dtype == self.dtype:
            out = product(self.weight[words], self._in_bits[rows].t(), plus=-less)
        else:
            out = product(self.weight[words], self.hidden[rows].t()).to(self.dtype).mul_(self.bits).sub_(less)
        if self.bias is not None:
            out += (self.bias[words] * self.bits)[:, None]
        for gap in self._gaps:
            out[max(gap.start - words.start, 0) : max(gap.stop - words.start, 0)] = LEAST
        return out

    @cached_property
    def _gaps(self) -> tuple[slice, ...]:
        """The words that are never written, those in a row as one."""
        words = sorted(self.never)
        starts = [word for place, word in enumerate(words) if not place or words[place - 1] != word - 1]
        stops = [word + 1 for place, word in enumerate(words) if words[place + 1 : place + 2] != [word + 1]]
        return tuple(slice(*ends) for ends in zip(starts, stops, strict=True))

    def is_never(self, tokens: Tensor) -> Tensor:
        """[n], of these words."""
        found = torch.zeros_like(tokens, dtype=torch.bool)
        for gap in self._gaps:
            found |= (tokens >= gap.start) & (tokens < gap.stop)
        return found

    def own_words(self, tokens: Tensor, words: slice) -> tuple[Tensor, Tensor]:
        """Whether the own word of each token [n] lies among these and is written, and where; anywhere if it does not.
        How many do is not asked: a device would have to answer."""
        places = tokens - words.start
        last = words.stop - words.start - 1
        return (places >= 0) & (places <= last) & ~self.is_never(tokens), places.clamp(0, last)

    def own_logits(self, tokens: Tensor, rows: slice) -> Tensor:
        """[n] in bits, of the own word of each of these tokens; near to what blocks say, and not the same."""
        own = (self.hidden[rows].to(self.dtype) * self.weight[tokens].to(self.dtype)).sum(-1)
        return (own if self.bias is None else own + self.bias[tokens]) * self.bits


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, max(length, 1), size))
