"""The logits of an output head, block by block: some tokens by some words, small enough to stay in a processor's cache,
and their sums over the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightrft.models.logprob import LEAST, exp
from lightrft.models.products import product

CELLS = 1 << 20  # logits of a block, 4 MiB: in a processor's cache
CELLS_OF_DEVICES = 1 << 25  # 128 MiB, where launches cost
NARROWEST = 256  # columns of a block: below it products of matrices are slow


@dataclass(frozen=True)
class Blocks:
    """The logits [N, V] of a head, `chunk` tokens at most at a time. weight [V, H], bias [V] or None.

    never: words whose logits are -inf.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    never: tuple[int, ...]
    temperature: float
    chunk: int

    @property
    def dtype(self) -> torch.dtype:
        """Of logits and sums."""
        return torch.promote_types(self.hidden.dtype, torch.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the largest block."""
        rows = min(self.chunk, max(len(self.hidden), 1))
        cells = CELLS if self.hidden.device.type == "cpu" else CELLS_OF_DEVICES
        return rows, min(max(cells // rows, NARROWEST), len(self.weight))

    def rows(self) -> Iterator[slice]:
        """One of no row, where there is none."""
        return _slices(len(self.hidden), self.shape[0])

    def columns(self) -> Iterator[slice]:
        return _slices(len(self.weight), self.shape[1])

    @property
    def cells(self) -> int:
        """Of the largest block: logits that are held at a time."""
        rows, columns = self.shape
        return rows * columns

    def logits(self, rows: slice, columns: slice) -> Tensor:
        """Over the temperature; the caller's to overwrite."""
        out = product(self.hidden[rows], self.weight[columns].t()).to(self.dtype)
        if self.bias is not None:
            out += self.bias[columns]
        for word in self.never:
            if columns.start <= word < columns.stop:
                out[:, word - columns.start] = -torch.inf
        return out if self.temperature == 1.0 else out.div_(self.temperature)


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, max(length, 1), size))


def own_words(tokens: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Whether each token [N] lies in these columns, and where in them; anywhere if it does not. How many do is not
    asked: a device would have to answer."""
    places = tokens - columns.start
    last = columns.stop - columns.start - 1
    return (places >= 0) & (places <= last), places.clamp(0, last)


@dataclass(frozen=True)
class Totals:
    """Of each token, [N]: its logit over the temperature, log sum exp of all words', and the entropy; [N, H]: the sum
    over the words of p times a word's weights, and of p log p times these. None where nobody asked."""

    picked: Tensor
    lse: Tensor
    entropy: Tensor | None
    pull: Tensor | None
    lean: Tensor | None


def totals(blocks: Blocks, tokens: Tensor, *, entropy: bool = False, pull: bool = False, lean: bool = False) -> Totals:
    found = list[Totals]()
    for rows in blocks.rows():
        picked = blocks.hidden.new_zeros(rows.stop - rows.start, dtype=blocks.dtype)
        sums = _Sums.none(picked, blocks.hidden.shape[1], entropy, pull or lean, lean)
        for columns in blocks.columns():
            z = blocks.logits(rows, columns)
            inside, places = own_words(tokens[rows], columns)
            picked = torch.where(inside, z.gather(-1, places[:, None])[:, 0], picked)
            sums.add(z, blocks.weight[columns])
            del z  # before the next block is made
        found.append(sums.totals(picked))
    return _joined(found)


def _joined(parts: list[Totals]) -> Totals:
    each = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    joined: dict[str, Any] = {name: None if of[0] is None else torch.cat(of) for name, of in each.items()}
    return Totals(**joined)


@dataclass
class _Sums:
    """Over the words so far, of w = exp(z - largest), for n tokens: mass [n] of w, tilt [n] of w (z - largest), pull
    [n, H] of w times a word's weights, lean [n, H] of w (z - largest) times these. None where nobody asks."""

    largest: Tensor
    mass: Tensor
    tilt: Tensor | None
    pull: Tensor | None
    lean: Tensor | None

    @classmethod
    def none(cls, like: Tensor, width: int, entropy: bool, pull: bool, lean: bool) -> _Sums:
        """like [n]: none of any word yet."""
        return cls(
            torch.full_like(like, torch.finfo(like.dtype).min / 2),
            torch.zeros_like(like),
            torch.zeros_like(like) if entropy else None,
            like.new_zeros(len(like), width) if pull else None,
            like.new_zeros(len(like), width) if lean else None,
        )

    def add(self, z: Tensor, words: Tensor) -> None:
        """Logits [n, v], which are overwritten, of words with weights [v, H]."""
        before, self.largest = self.largest, torch.maximum(self.largest, z.amax(-1))
        shift = before - self.largest
        fade, z = shift.exp(), z.sub_(self.largest[:, None])
        w = exp(z, in_place=self.tilt is None)
        if self.lean is not None and self.pull is not None:
            self.lean.addcmul_(self.pull, shift[:, None]).mul_(fade[:, None])
            self.lean += product((w * z.clamp_(min=LEAST)).to(words.dtype), words)
        if self.tilt is not None:
            self.tilt = fade * (self.tilt + shift * self.mass) + torch.linalg.vecdot(w, z.clamp_(min=LEAST))
        self.mass = fade * self.mass + w.sum(-1)
        if self.pull is not None:
            self.pull.mul_(fade[:, None]).add_(product(w.to(words.dtype), words))

    def totals(self, picked: Tensor) -> Totals:
        log, mass = self.mass.log(), self.mass[:, None]
        entropy = None if self.tilt is None else log - self.tilt / self.mass
        pull = None if self.pull is None else self.pull / mass
        lean = None if self.lean is None or pull is None else self.lean / mass - log[:, None] * pull
        return Totals(picked, self.largest + log, entropy, pull, lean)
