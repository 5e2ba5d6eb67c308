"""Weights that make samples of the inference engine count as samples of the trainer's policy (algorithms S8).

log w = old_logprobs - rollout_logprobs, both at the sampling temperature and of the unfiltered distribution. Weights
carry no gradient, multiply the policy term only, and leave every denominator as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.algorithms.functional import bounded, log_ratio, masked, row_mean

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric")


def importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, kind: str, low: float | None, high: float
) -> Tensor:
    """[B, T] weights, 0 where masked.

    token_truncate: w between `low` (if given) and `high`      token_mask: w, 0 outside [low, high]
    sequence_truncate, sequence_mask: the same of w = exp(sum of log w) on every token of a row
    geometric: token w, kept in rows whose exp(mean of log w) lies in [low, high]
    """
    log_w = bounded(log_ratio(old_logprobs.detach(), rollout_logprobs, mask))
    if kind == "off":
        return mask.to(log_w.dtype)
    weights = _bounded(_raw(log_w, mask, kind), _judged(log_w, mask, kind), kind, low, high)
    return masked(weights.expand(mask.shape), mask)


def row_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, kind: str, low: float | None, high: float
) -> Tensor:
    """[B, T], one weight per row, for losses with one ratio per row (GSPO, GMPO): token weights would break these.

    The weight of a row is exp(mean of log w), truncated or masked as `kind` says; sequence kinds take the sum.
    """
    log_w = bounded(log_ratio(old_logprobs.detach(), rollout_logprobs, mask))
    if kind == "off":
        return mask.to(log_w.dtype)
    weight = _sequence(log_w, mask) if kind.startswith("sequence") else row_mean(log_w, mask).exp()
    return masked(_bounded(weight, weight, kind, low, high).expand(mask.shape), mask)


def _raw(log_w: Tensor, mask: Tensor, kind: str) -> Tensor:
    return _sequence(log_w, mask) if kind.startswith("sequence") else log_w.exp()


def _judged(log_w: Tensor, mask: Tensor, kind: str) -> Tensor:
    """What has to lie in the band for a weight to be kept."""
    return row_mean(log_w, mask).exp() if kind == "geometric" else _raw(log_w, mask, kind)


def _sequence(log_w: Tensor, mask: Tensor) -> Tensor:
    return bounded(masked(log_w, mask).sum(-1, keepdim=True)).exp()


def _bounded(weights: Tensor, judged: Tensor, kind: str, low: float | None, high: float) -> Tensor:
    if kind.endswith("truncate"):
        return weights.clamp(min=low, max=high)
    inside = (judged >= (low or 0.0)) & (judged <= high)
    return weights.masked_fill(~inside, 0.0)
