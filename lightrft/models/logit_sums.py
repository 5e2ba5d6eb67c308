"""Sums over the vocabulary, block by block (logit_blocks.py): of each token the log-probability, the entropy, and the
mean of the words' weights.

Exponentials are of bits above a reference of each token. On a CPU that is its own word's logit, which a sampled word
has near the largest as a rule: one reference for all blocks, and no block is read for its largest. Where a sum is not
finite, as of a word that has next to no probability, the reference follows the largest logit so far. So it does from
the start on a device, whose host would wait to see whether a sum is finite; where products round to 16 bits; and where
p log p times words is wanted, from which much is taken off if the reference is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightrft.models.logit_blocks import LEAST, LN_2, Blocks
from lightrft.models.products import product


@dataclass(frozen=True)
class Totals:
    """Of each token, [N]: the log-probability, log sum exp of all words' logits over the temperature, in bits, and the
    entropy; [N, H]: the sum over the words of p times a word's weights, and of p log p times these. None where nobody
    asked."""

    logprob: Tensor
    bits: Tensor
    entropy: Tensor | None
    pull: Tensor | None
    lean: Tensor | None


def totals(blocks: Blocks, tokens: Tensor, *, entropy: bool = False, pull: bool = False, lean: bool = False) -> Totals:
    wanted = entropy, pull or lean, lean
    return joined([_of_rows(blocks, rows, tokens[rows], wanted) for rows in blocks.rows()])


def _of_rows(blocks: Blocks, rows: slice, tokens: Tensor, wanted: tuple[bool, bool, bool]) -> Totals:
    if tokens.device.type == "cpu" and blocks.hidden.dtype == blocks.dtype and not wanted[-1]:
        start = blocks.own_logits(tokens, rows)
        sums = _summed(blocks, rows, tokens, Sums.none(start, blocks.hidden.shape[1], *wanted))
        if sums.are_finite:
            return sums.totals(blocks.is_never(tokens))
    start = blocks.hidden.new_zeros(len(tokens), dtype=blocks.dtype)
    sums = _summed(blocks, rows, tokens, Sums.none(start, blocks.hidden.shape[1], *wanted), follow=True)
    return sums.totals(blocks.is_never(tokens))


def _summed(blocks: Blocks, rows: slice, tokens: Tensor, sums: Sums, *, follow: bool = False) -> Sums:
    for words in blocks.words():
        z = blocks.logits(rows, words, sums.reference)
        if follow:
            sums.follow(z)
        sums.add(z, blocks.weight[words], *blocks.own_words(tokens, words))
        del z  # before the next block is made
    return sums


def joined(parts: list[Totals]) -> Totals:
    each = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    joined: dict[str, Any] = {name: None if of[0] is None else torch.cat(of) for name, of in each.items()}
    return Totals(**joined)


@dataclass
class Sums:
    """Over the words so far, of w = 2^z with z a logit in bits less the reference, for n tokens: mass [n] of w, tilt
    [n] of w z, pull [n, H] of w times a word's weights, lean [n, H] of w z times these; own [n]: z of the token's own
    word. None where nobody asked."""

    reference: Tensor
    own: Tensor
    mass: Tensor
    tilt: Tensor | None
    pull: Tensor | None
    lean: Tensor | None

    @classmethod
    def none(cls, reference: Tensor, width: int, entropy: bool, pull: bool, lean: bool) -> Sums:
        """reference [n]: none of any word yet."""
        like = reference
        return cls(
            like,
            torch.zeros_like(like),
            torch.zeros_like(like),
            torch.zeros_like(like) if entropy else None,
            like.new_zeros(len(like), width) if pull else None,
            like.new_zeros(len(like), width) if lean else None,
        )

    def follow(self, z: Tensor) -> None:
        """Raises the reference to the largest logit so far; z [v, n], which is written to, is of the next words."""
        peak = z.amax(0)
        first = peak.masked_fill(peak < LEAST / 2, 0)  # where the words so far, and maybe these, are never written
        up = torch.where(self.mass == 0, first, peak.clamp(min=0))
        z.sub_(up)
        self.reference, self.own = self.reference + up, self.own - up
        up = up.clamp(min=0)  # without words there is nothing to fade
        fade = torch.exp2(-up)
        if self.lean is not None and self.pull is not None:
            self.lean.addcmul_(self.pull, -up[:, None]).mul_(fade[:, None])
        if self.pull is not None:
            self.pull.mul_(fade[:, None])
        if self.tilt is not None:
            self.tilt = fade * (self.tilt - up * self.mass)
        self.mass = fade * self.mass

    def add(self, z: Tensor, weights: Tensor, is_here: Tensor, places: Tensor, *, keep: bool = False) -> None:
        """z [v, n], which is overwritten unless it is kept, of words with weights [v, H]; whether the own words of
        tokens are among them, and where."""
        self.own = torch.where(is_here, z.gather(0, places[None])[0], self.own)
        w = torch.exp2(z) if keep or self.tilt is not None or self.lean is not None else z.exp2_()
        self.mass = self.mass + w.sum(0)
        if self.tilt is not None:
            self.tilt = self.tilt + torch.linalg.vecdot(w, z.clamp_(min=LEAST), dim=0)
        if self.pull is not None:
            self.pull += product(w.t().to(weights.dtype), weights)
        if self.lean is not None:
            self.lean += product(w.mul_(z.clamp_(min=LEAST)).t().to(weights.dtype), weights)

    @property
    def are_finite(self) -> bool:
        """And something was added up, for each token."""
        some = (each for each in (self.mass.log2(), self.tilt, self.pull, self.lean) if each is not None)
        return all(bool(each.isfinite().all()) for each in some)

    def totals(self, is_never: Tensor) -> Totals:
        """is_never [n]: tokens whose log-probability is -inf."""
        log, mass = self.mass.log2(), self.mass[:, None]
        entropy = None if self.tilt is None else LN_2 * (log - self.tilt / self.mass)
        pull = None if self.pull is None else self.pull / mass
        lean = None if self.lean is None or pull is None else LN_2 * (self.lean / mass - log[:, None] * pull)
        own = (self.own - log).masked_fill(is_never, -torch.inf)
        return Totals(LN_2 * own, self.reference + log, entropy, pull, lean)
