"""Drawing one token per row from logits, by inverse CDF with one uniform number per row."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightrft.rollouts.engines.base import Sampling

BLOCK = 256  # the CDF is walked in two levels, blocks of the vocabulary first: no cumulative sum over all of it
FIRST_TOP = 2048  # tokens sorted at first when looking for the nucleus; most distributions need no more


class Drawn(NamedTuple):
    """Token ids [B] and their log-probabilities [B] float32. kept [B, V] bool: what they were drawn from, where this
    was asked for and is not all."""

    tokens: Tensor
    logprobs: Tensor
    kept: Tensor | None = None


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Drawn:
    """logits [B, V], uniform [B] float64 in [0, 1).

    Log-probabilities are of the temperature-scaled distribution before the filters (at temperature 0: of the
    unscaled one), or with `kept` after them: either is what the trainer computes. Logits that are not finite (-inf
    aside, for tokens that cannot come) give some token with the log-probability NaN: to look for them here would wait
    for the GPU at every token.
    """
    z = logits.float()
    if sampling.temperature in (0.0, 1.0):
        p = z.softmax(-1)
    else:
        p = (z / sampling.temperature).softmax(-1)
    if sampling.temperature == 0.0:
        tokens = z.argmax(-1)
        return Drawn(tokens, _picked(p, tokens).log())
    weights = keep(p, p.sum(-1), sampling) if sampling.filtered else p
    tokens = inverse_cdf(weights, uniform)
    if not sampling.masks:
        return Drawn(tokens, _picked(p, tokens).log())
    return Drawn(tokens, _picked(p, tokens).log() - weights.sum(-1).log(), weights > 0)


def draw_hot(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Drawn:
    """As `draw`, at `first_temperature`; the log-probabilities are those of `temperature`, before the filters."""
    assert sampling.first_temperature is not None
    hot = draw(logits, uniform, replace(sampling, temperature=sampling.first_temperature, returns_mask=False))
    scaled = logits.float() / (sampling.temperature or 1.0)
    return Drawn(hot.tokens, _picked(scaled.log_softmax(-1), hot.tokens))


def _picked(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(1, tokens[:, None])[:, 0]


def keep(weights: Tensor, total: Tensor, sampling: Sampling) -> Tensor:
    """weights [B, V] with those outside top_k, top_p, min_p set to 0. Ties at a threshold are kept."""
    if 0 < sampling.top_k < weights.shape[-1]:
        weights = _from(weights, _largest(weights, sampling.top_k)[:, -1:])
        total = weights.sum(-1)
    if sampling.top_p < 1.0:
        weights = _from(weights, _nucleus_threshold(weights, sampling.top_p * total))
    if sampling.min_p > 0.0:
        weights = _from(weights, sampling.min_p * weights.amax(-1, keepdim=True))
    return weights


def _from(weights: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(weights >= threshold, weights, 0.0)


def _largest(weights: Tensor, count: int) -> Tensor:
    """[B, count], the largest first. On a CPU by NumPy, which is several times faster at it."""
    vocabulary = weights.shape[-1]
    if weights.device.type != "cpu":
        return weights.topk(count).values if count < vocabulary else weights.sort(-1, descending=True).values
    values = weights.detach().numpy()
    if count < vocabulary:
        values = np.partition(values, vocabulary - count)[:, vocabulary - count :]
    return torch.from_numpy(np.sort(values)[:, ::-1].copy())


def _nucleus_threshold(weights: Tensor, mass: Tensor) -> Tensor:
    """[B, 1]: the smallest weight in the smallest set of largest weights that reaches `mass` [B].

    Rows for which the first few do not suffice are sorted whole; on a GPU, which would have to be waited for to know
    them, all are.
    """
    vocabulary = weights.shape[-1]
    first = FIRST_TOP if weights.device.type == "cpu" else vocabulary
    threshold, reached = _reaching(_largest(weights, min(first, vocabulary)), mass)
    if first < vocabulary and not bool(reached.all()):
        rest = ~reached
        threshold[rest] = _reaching(_largest(weights[rest], vocabulary), mass[rest])[0]
    return threshold


def _reaching(largest: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The entry [B, 1] of `largest` [B, N] at which the running sum reaches `mass` [B], or the last; and whether."""
    short = largest.cumsum(-1) < mass[:, None]
    place = short.sum(-1, keepdim=True).clamp(max=largest.shape[-1] - 1)
    return largest.gather(1, place), ~short[:, -1]


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first index at which the running sum of weights [B, V] exceeds uniform [B] times their sum."""
    if weights.shape[-1] <= BLOCK:
        cdf = weights.double().cumsum(-1)
        return _first_above(cdf, uniform * cdf[:, -1])
    short = -weights.shape[-1] % BLOCK
    whole = torch.nn.functional.pad(weights, (0, short)) if short else weights  # it copies
    blocks = whole.unflatten(-1, (-1, BLOCK))
    block_cdf = blocks.sum(-1).double().cumsum(-1)
    block = _first_above(block_cdf, uniform * block_cdf[:, -1])
    before = block_cdf.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0].where(block > 0, 0.0)
    within_cdf = blocks[torch.arange(len(block), device=block.device), block].double().cumsum(-1)
    found = block * BLOCK + _first_above(within_cdf, uniform * block_cdf[:, -1] - before)
    return found.clamp(max=weights.shape[-1] - 1)  # beyond the last one where weights are NaN


def _first_above(cdf: Tensor, target: Tensor) -> Tensor:
    """Index [B] of the first entry of each row above target [B]; rounding never leads past the last mass, nor NaN past
    the last entry."""
    last = cdf[:, -1]
    below_last = torch.nextafter(last, torch.zeros_like(last))
    found = torch.searchsorted(cdf, target.clamp(min=0.0).minimum(below_last)[:, None], right=True)[:, 0]
    return found.clamp(max=cdf.shape[-1] - 1)
