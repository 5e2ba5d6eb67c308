"""Scores of a trained head and the gradients that they lead to, at once: three products of matrices, and not four.

Logits do not have to be made again where the slopes of the loss to a token's scores follow from that token's scores, or
from its row's: some tokens, or rows, at a time have their logits made, their scores, their slopes, and their share of
the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightrft.models.foreseen import Parts, Slopes
from lightrft.models.head_gradients import Gradients, Needed, Slope, gradients
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logit_sums import Sums, Totals, joined, totals
from lightrft.models.products import product


@dataclass(frozen=True)
class AtOnce:
    """What was expected [N, k] of the slopes, and the gradients by it."""

    expected: Tensor
    gradients: Gradients

    def corrected(self, blocks: Blocks, slope: Slope, needed: Needed) -> Gradients:
        """By the slopes that came: a multiple of those expected, where the loss was multiplied since, and what is left
        beyond rounding, whose logits are made again; all of them where the two have nothing in common."""
        if not len(slope.of):
            return self.gradients
        times, largest = _ratio(slope.of, self.expected), slope.of.abs().max()
        rest, rounding = slope.of - times * self.expected, torch.finfo(slope.of.dtype).eps
        if not bool((rest.abs().max() <= largest) & largest.isfinite()):
            return gradients(blocks, slope, needed)
        rest = rest.masked_fill(rest.abs() <= rounding * torch.maximum(4 * slope.of.abs(), largest), 0)
        made = [each if each is None or times == 1 else each.mul_(times) for each in self.gradients]
        if bool((rest == 0).all()):
            return made[0], made[1], made[2]
        more = gradients(blocks, replace(slope, of=rest), needed)
        hidden, weight, bias = (a if a is None or b is None else a.add_(b) for a, b in zip(made, more, strict=True))
        return hidden, weight, bias


def _ratio(came: Tensor, expected: Tensor) -> float:
    """At the largest that was expected; 1 where none was."""
    place = expected.abs().flatten().argmax()
    largest = float(expected.flatten()[place])
    return float(came.flatten()[place]) / largest if largest else 1.0


def at_once(
    blocks: Blocks, tokens: Tensor, entropy: str | None, slopes: Slopes, parts: Parts, needed: Needed
) -> tuple[Totals, AtOnce]:
    """Tokens of a part that is too long to be held are expected to have no slope, and are corrected like others."""
    held, kinds = replace(blocks, chunk=max(parts.held, 1)), 2 if entropy == "gradient" else 1
    room = blocks.hidden.new_empty(len(blocks.weight), parts.held)  # many would leave holes in the heap
    scores, expected = (torch.zeros(len(tokens), n, dtype=blocks.dtype) for n in (1 + (entropy is not None), kinds))
    found, sums = list[Totals](), _Accumulated.none(blocks, needed)
    for rows in parts.slices:
        if not parts.is_held(rows):
            found.append(totals(blocks.of(rows), tokens[rows], entropy=entropy is not None))
            continue
        logits = room[:, : rows.stop - rows.start]
        t = _fill(logits, held, rows, tokens[rows], entropy is not None)
        scores[rows] = torch.stack([each for each in (t.logprob, t.entropy) if each is not None], -1)
        found.append(t)
        expected[rows] = slopes(scores)[rows] / blocks.temperature
        values = t.entropy if entropy == "gradient" else None
        sums.add(held, rows, logits, Slope(tokens[rows], t.bits, expected[rows], values))
    return joined(found), AtOnce(expected, sums.gradients)


def _fill(logits: Tensor, blocks: Blocks, rows: slice, tokens: Tensor, entropy: bool) -> Totals:
    """Makes logits [V, n] log2 p of these rows, and sums them up; once more, from the largest, where sums overflow."""
    start, width = blocks.own_logits(tokens, rows), blocks.hidden.shape[1]
    sums = Sums.none(start, width, entropy, False, False)
    for words in blocks.words():
        z = logits[words].copy_(blocks.logits(rows, words, start))
        sums.add(z, blocks.weight[words], *blocks.own_words(tokens, words), keep=True)
    if not sums.are_finite:
        peak = logits.amax(0)
        logits -= peak
        sums = Sums.none(start + peak, width, entropy, False, False)
        for words in blocks.words():
            sums.add(logits[words], blocks.weight[words], *blocks.own_words(tokens, words), keep=True)
    logits -= sums.mass.log2()
    return sums.totals(blocks.is_never(tokens))


@dataclass(frozen=True)
class _Accumulated:
    """Gradients of the tokens so far."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def none(cls, blocks: Blocks, needed: Needed) -> _Accumulated:
        given = zip((blocks.hidden, blocks.weight, blocks.bias), needed, strict=True)
        return cls(*(torch.zeros_like(each) if asked and each is not None else None for each, asked in given))

    @property
    def gradients(self) -> Gradients:
        return self.hidden, self.weight, self.bias

    def add(self, blocks: Blocks, rows: slice, logits: Tensor, slope: Slope) -> None:
        """logits [V, n]: log2 p of these rows, overwritten. Those without a slope take no products."""
        keep = slope.rows
        places = torch.arange(len(slope.of)) if keep is None else keep
        slope, hidden = slope if keep is None else slope.at(keep), blocks.hidden[rows][places]
        every, factors, own = slice(0, len(places)), slope.factors, torch.zeros_like(hidden)
        multiplied = factors[:, None] * hidden
        for words in blocks.words():
            z = logits[words] if keep is None else logits[words][:, keep]
            dz = slope.of_logits(z, every, *blocks.own_words(slope.tokens, words))
            if self.hidden is not None:
                own += product(dz.t(), blocks.weight[words])
            if self.weight is not None:
                self.weight[words] += product(dz, multiplied)
            if self.bias is not None:
                self.bias[words] += torch.mv(dz, factors)
        if self.hidden is not None:
            self.hidden[rows.start + places] = own.mul_(factors[:, None])
