"""Shared pure functions: ratios, clips, KL estimators, group statistics, aggregation.

Shapes are `[B, T]` unless said otherwise; masks are 1 on trained tokens. Every function is safe against non-finite
numbers at masked positions (they are replaced *before* any exp or division, so autograd cannot bring them back).
Only tensor methods are used: importing this module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.groups import rows_by_group

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO_LIMIT = 20.0
IMPOSSIBLE = 1e4  # the size of a log-ratio when one policy gives the token probability 0


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` where the mask is 1, else exactly 0: NaN in the padding goes no further, in either direction."""
    return values.masked_fill(mask == 0, 0.0)


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """d = logprobs - old_logprobs; 0 where masked. `bounded` before anybody takes its exp."""
    d = masked(logprobs, mask) - masked(old_logprobs, mask)
    return d.clamp(-IMPOSSIBLE, IMPOSSIBLE)


def bounded(d: Tensor) -> Tensor:
    """d within +-20, with no gradient beyond."""
    return d.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def distance(d: Tensor) -> Tensor:
    """r - 1 - d with r = exp(d), never negative: the k3 estimate of KL(old || policy). d is taken as a number."""
    d = bounded(d.detach())
    return d.expm1() - d


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, 1]: the mean over the trained tokens of each row, 0 for an empty one."""
    return masked(values, mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def ppo_clip(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), per token. PPO, arXiv:1707.06347."""
    return -(ratio * advantages).minimum(ratio.clamp(1 - low, 1 + high) * advantages)


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kind: str) -> Tensor:
    """Per-token estimate of KL(pi || ref) from samples of pi, with d = logprobs - ref_logprobs.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d (Schulman, "Approximating KL divergence"). As a loss k2 has the
    gradient of the reverse KL, k3 that of the forward KL, k1 none in expectation. Beyond +-20 the exp in k3 stays
    where it is and so does its gradient, 1 - exp(-d): at 0 it would fail where control is needed most.
    """
    d = log_ratio(logprobs, ref_logprobs, mask)
    if kind == "k1":
        return d
    if kind == "k2":
        return d.square() / 2
    if kind == "k3":
        held = d + (bounded(d) - d).detach()
        return (-held).expm1() + d
    raise ValueError(f"kl_estimator {kind!r} is none of k1, k2, k3")


@dataclass(frozen=True)
class Groups:
    """Finite rewards per prompt: `mean`, `std`, `count` [G] (float64), `constant` [G] bool; `rows` [R] is each row's
    place among them."""

    mean: Tensor
    std: Tensor
    count: Tensor
    constant: Tensor
    rows: Tensor


def group_statistics(rewards: Tensor, group: Tensor) -> Groups:
    """Mean and sample standard deviation (ddof 1) of the finite rewards of each group, in float64.

    rewards [R], group [R] any ids in any order; groups in the order of their first row. `constant` is True where all
    finite rewards are equal, or there are fewer than two: rounding makes `std > 0` an unsafe test of that.
    """
    names = group.tolist()
    places = {name: place for place, name in enumerate(rows_by_group(names))}
    index = group.new_tensor([places[name] for name in names])
    finite = rewards.isfinite()
    values = rewards.double().masked_fill(~finite, 0.0)
    zeros = values.new_zeros(len(places))
    count = zeros.index_add(0, index, finite.double())
    mean = zeros.index_add(0, index, values) / count.clamp(min=1)
    deviation = (values - mean[index]).masked_fill(~finite, 0.0)
    std = (zeros.index_add(0, index, deviation.square()) / (count - 1).clamp(min=1)).sqrt()
    infinity = float("inf")
    low = (zeros + infinity).scatter_reduce(0, index, values.masked_fill(~finite, infinity), "amin")
    high = (zeros - infinity).scatter_reduce(0, index, values.masked_fill(~finite, -infinity), "amax")
    return Groups(mean, std, count, (high <= low) | (count < 2), index)


@dataclass(frozen=True)
class Counts:
    """Denominators of one optimizer step, over all its rows on all ranks.

    tokens: trained tokens; sequences: rows with at least one; rows: all real rows; groups: prompts with at least one
    trained token. group_tokens [B] holds, for each row of a (micro-)batch, the trained tokens of its whole group.
    """

    tokens: float
    sequences: float
    rows: float
    groups: float
    max_new_tokens: int


def token_weights(mask: Tensor, mode: str, counts: Counts, group_tokens: Tensor | None = None) -> Tensor:
    """W [B, T] with L = sum W * loss for the aggregation `mode`; depends on the step's global counts only."""
    tokens = mask.sum(-1, keepdim=True).clamp(min=1)
    if mode == "token-mean":
        return mask / max(counts.tokens, 1)
    if mode == "seq-mean-token-sum":
        return mask / max(counts.sequences, 1)
    if mode == "seq-mean-token-mean":
        return mask / (max(counts.sequences, 1) * tokens)
    if mode == "seq-mean-token-sum-norm":
        return mask / (max(counts.rows, 1) * counts.max_new_tokens)
    if mode == "prompt-mean-token-mean":
        assert group_tokens is not None, "prompt modes need the tokens of each row's group"
        return mask / (max(counts.groups, 1) * group_tokens.clamp(min=1)[:, None])
    raise ValueError(f"loss_agg_mode {mode!r} is not one of the five")


def aggregate(loss: Tensor, mask: Tensor, mode: str, counts: Counts, group_tokens: Tensor | None = None) -> Tensor:
    """The one reduction: a scalar whose sum over micro-batches and ranks is the loss of the optimizer step."""
    weights = token_weights(mask.to(loss.dtype), mode, counts, group_tokens)
    return (weights * masked(loss, mask)).sum()
