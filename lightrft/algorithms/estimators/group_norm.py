"""`--advantage_estimator group_norm`: GRPO, arXiv:2402.03300.

    A_i = (R_i - mean_g R) / (std_g R + 1e-6)                     one number per response, ddof 1
    l   = -min(r A, clip(r, 1 - clip_range, 1 + clip_range_higher) A),   r = exp(logprobs - old_logprobs)

A group whose rewards are all equal, or with fewer than two valid rewards, has advantage exactly 0: in float32 the
mean of equal numbers need not equal them, and a tiny std would blow the difference up. A sample with a non-finite
reward is left out of its group's statistics and does not train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.algorithms.estimator import Advantages, Estimator, TokenLoss
from lightrft.algorithms.functional import group_statistics, log_ratio, masked, ppo_clip

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.args.groups.algorithm import AlgorithmArgs
    from lightrft.types import Batch

EPSILON = 1e-6


def group_norm_advantages(batch: Batch, args: AlgorithmArgs) -> Advantages:
    """Rewards [B] and groups [B] of the whole rollout step to advantages [B, T]; formula above."""
    groups = group_statistics(batch.rewards, batch.group)
    valid = batch.rewards.isfinite()
    centred = batch.rewards.double() - groups.mean[groups.index]
    scaled = centred / (groups.std[groups.index] + EPSILON)
    per_sample = scaled.masked_fill(groups.constant[groups.index] | ~valid, 0.0).float()
    advantages = masked(per_sample[:, None].expand(batch.response_mask.shape), batch.response_mask)
    return Advantages(advantages, valid, {"reward/constant_groups_frac": float(groups.constant.double().mean())})


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, args: AlgorithmArgs
) -> TokenLoss:
    """PPO's clipped surrogate per token. All arguments [B, T]; metrics are per-token indicators [B, T]."""
    d = log_ratio(logprobs, old_logprobs, response_mask)
    ratio = d.exp()
    loss = ppo_clip(ratio, masked(advantages, response_mask), args.clip_range, args.clip_range_higher)
    fixed = ratio.detach()
    high = ((advantages > 0) & (fixed > 1 + args.clip_range_higher)).to(loss.dtype)
    low = ((advantages < 0) & (fixed < 1 - args.clip_range)).to(loss.dtype)
    metrics = {
        "policy/clip_frac": high + low,
        "policy/clip_frac_high": high,
        "policy/clip_frac_low": low,
        "policy/approx_kl": fixed - 1 - d.detach(),
    }
    return TokenLoss(loss, metrics)


ESTIMATOR = Estimator(
    advantage=group_norm_advantages,
    policy_loss=clipped_policy_loss,
    aggregation="seq-mean-token-mean",
    needs={"group"},
    defaults={},
    paper="arXiv:2402.03300",
)
