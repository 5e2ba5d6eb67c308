"""Rewards to advantages: group baselines, token rewards, returns, GAE, whitening.

Shapes are `[B, T]` unless said otherwise; `mask` is 1 on trained tokens. Untrained positions inside a response (the
output of a tool) are transparent: they neither earn a reward, nor cost a factor gamma, nor end a return. All sums are
float64 where rewards are; nothing here carries a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightrft.algorithms.functional import Groups, group_statistics, kl_penalty, masked

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6  # of the group's standard deviation
VARIANCE_FLOOR = 1e-8  # of whitening
CLIP_FILTER_CAP = 3.0

Sum = Callable[["Tensor"], "Tensor"]


def alone(values: Tensor) -> Tensor:
    """The sum over one rank."""
    return values


def group_baseline(rewards: Tensor, group: Tensor, kind: str) -> tuple[Tensor, Groups]:
    """[B] rewards less what their group says, float64; 0 for constant groups, groups of one and invalid samples.

    scaled: (R - mean) / (std + 1e-6), ddof 1   (GRPO, arXiv:2402.03300; CPGD's STD weight)
    centred: R - mean                           (Dr.GRPO, arXiv:2503.20783; REINFORCE++-baseline; CPGD's equal weight)
    leave_one_out: R - mean of the others       (RLOO, arXiv:2402.14740)
    clip_filter: min(3, prompts / prompts that differ) (R - mean)   (CPGD, arXiv:2505.12504)
    """
    groups = group_statistics(rewards, group)
    centred = rewards.double() - groups.mean[groups.index]
    factors = {
        "scaled": lambda: 1 / (groups.std + EPSILON),
        "centred": lambda: groups.count.new_ones(groups.count.shape),
        "leave_one_out": lambda: groups.count / (groups.count - 1).clamp(min=1),
        "clip_filter": lambda: (groups.count.new_ones(groups.count.shape) / (~groups.constant).double().mean()).clamp(
            max=CLIP_FILTER_CAP
        ),
    }
    found = centred * factors[kind]()[groups.index]
    return found.masked_fill(groups.constant[groups.index] | ~rewards.isfinite(), 0.0), groups


def last_token(mask: Tensor) -> Tensor:
    """1 at the last trained token of each row, else 0; an empty row has none."""
    after = mask.flip(-1).cumsum(-1).flip(-1)
    return mask * (after == 1)


def token_rewards(
    rewards: Tensor, mask: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor | None, kl_coef: float, kl_kind: str
) -> Tensor:
    """-kl_coef * kl(old, ref) on every trained token, and the reward [B] on the last one (S1.4)."""
    earned = rewards[:, None].expand(mask.shape).masked_fill(last_token(mask) == 0, 0.0)
    if ref_logprobs is None or kl_coef == 0:
        return earned
    return earned - kl_coef * masked(kl_penalty(old_logprobs, ref_logprobs, mask, kl_kind), mask)


def discounted_returns(token_rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_next, `next` being the next trained token."""
    running, found = token_rewards.new_zeros(token_rewards.shape[0]), []
    for t in range(mask.shape[-1] - 1, -1, -1):
        trained = mask[:, t] == 1
        running = (token_rewards[:, t] + gamma * running).where(trained, running)
        found.append(running.masked_fill(~trained, 0.0))
    return _columns(found)


def generalized_advantages(
    token_rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lambd: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) of GAE, arXiv:1506.02438: A_t = delta_t + gamma lambda A_next, returns = A + V.

    delta_t = r_t + gamma V_next - V_t, with V = 0 after the last trained token: a truncated response is terminal.
    """
    values = masked(values, mask)
    following = advantage = values.new_zeros(values.shape[0])
    found = []
    for t in range(mask.shape[-1] - 1, -1, -1):
        trained = mask[:, t] == 1
        delta = token_rewards[:, t] + gamma * following - values[:, t]
        advantage = (delta + gamma * lambd * advantage).where(trained, advantage)
        following = values[:, t].where(trained, following)
        found.append(advantage.masked_fill(~trained, 0.0))
    advantages = _columns(found)
    return advantages, masked(advantages + values, mask)


def _columns(found: list[Tensor]) -> Tensor:
    """Columns that were found from the last to the first, as one tensor."""
    stacked = found[0].new_empty(found[0].shape[0], len(found))
    for t, column in enumerate(reversed(found)):
        stacked[:, t] = column
    return stacked


def whitened(advantages: Tensor, mask: Tensor, total: Sum = alone) -> Tensor:
    """(A - mean) / sqrt(max(var, 1e-8)) over all trained tokens of the rollout step; population variance; 0 elsewhere.

    total: sums a scalar over all ranks. Two passes, so that every rank gets the same numbers.
    """
    count = total(mask.double().sum()).clamp(min=1)
    mean = total(masked(advantages, mask).double().sum()) / count
    centred = masked(advantages.double() - mean, mask)
    variance = total(centred.square().sum()) / count
    return (centred / variance.clamp(min=VARIANCE_FLOOR).sqrt()).to(advantages.dtype)


def clipped_advantages(advantages: Tensor, mask: Tensor, limit: float, total: Sum = alone) -> tuple[Tensor, float]:
    """Advantages within +-limit, and the share of trained tokens that were outside before."""
    outside = masked((advantages.abs() > limit).double(), mask)
    share = total(outside.sum()) / total(mask.double().sum()).clamp(min=1)
    return advantages.clamp(-limit, limit), float(share)
