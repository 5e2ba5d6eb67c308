"""Rewards to advantages: group baselines, token rewards, returns, GAE.

Shapes are `[B, T]` unless said otherwise; `mask` is 1 on trained tokens. Untrained positions inside a response (the
output of a tool) are transparent: they neither earn a reward, nor cost a factor gamma, nor end a return. All sums are
float64 where rewards are; nothing here carries a gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.algorithms.estimator import AdvantageFunction, Advantages, AdvantageSettings
from lightrft.algorithms.functional import Groups, group_statistics, kl_penalty, masked
from lightrft.algorithms.over_ranks import constant, moments
from lightrft.ranks.base import ONE_RANK, Ranks

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.batch import Batch

EPSILON = 1e-6  # of the group's standard deviation
CLIP_FILTER_CAP = 3.0


def group_baseline(rewards: Tensor, group: Tensor, kind: str) -> tuple[Tensor, Groups]:
    """[R] rewards less what their group says, float64; 0 for constant groups, groups of one and invalid samples.

    Over all rows of the rollout step, wherever they lie.

    scaled: (R - mean) / (std + 1e-6), ddof 1   (GRPO, arXiv:2402.03300; CPGD's STD weight)
    centred: R - mean                           (Dr.GRPO, arXiv:2503.20783; REINFORCE++-baseline; CPGD's equal weight)
    leave_one_out: R - mean of the others       (RLOO, arXiv:2402.14740)
    clip_filter: min(3, prompts / prompts that differ) (R - mean)   (CPGD, arXiv:2505.12504)
    """
    groups = group_statistics(rewards, group)
    rows = groups.rows
    centred = rewards.double() - groups.mean[rows]
    factors = {
        "scaled": lambda: 1 / (groups.std + EPSILON),
        "centred": lambda: groups.count.new_ones(groups.count.shape),
        "leave_one_out": lambda: groups.count / (groups.count - 1).clamp(min=1),
        "clip_filter": lambda: (groups.count.new_ones(groups.count.shape) / (~groups.constant).double().mean()).clamp(
            max=CLIP_FILTER_CAP
        ),
    }
    found = centred * factors[kind]()[rows]
    return found.masked_fill(groups.constant[rows] | ~rewards.isfinite(), 0.0), groups


def own_baseline(batch: Batch, kind: str) -> tuple[Tensor, Groups]:
    """`group_baseline` of the whole rollout step, and of it the [B] rows that are here."""
    rewards, group = batch.rewards.new_tensor(batch.index.rewards), batch.group.new_tensor(batch.index.group)
    everywhere, groups = group_baseline(rewards, group, kind)
    return everywhere[batch.group.new_tensor(batch.index.own)], groups


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
    if gamma == 1:  # on a CPU, in float64, the loop adds the same numbers in the same order
        return masked(masked(token_rewards, mask).flip(-1).cumsum(-1).flip(-1), mask)
    running, found = token_rewards.new_zeros(token_rewards.shape[0]), []
    for t in range(mask.shape[-1] - 1, -1, -1):
        trained = mask[:, t] == 1
        running = (token_rewards[:, t] + gamma * running).where(trained, running)
        found.append(running.masked_fill(~trained, 0.0))
    return _columns(found, token_rewards)


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
    advantages = _columns(found, values)
    return advantages, masked(advantages + values, mask)


def _columns(found: list[Tensor], like: Tensor) -> Tensor:
    """Columns that were found from the last to the first, as one tensor."""
    stacked = like.new_empty(like.shape)
    for t, column in enumerate(reversed(found)):
        stacked[:, t] = column
    return stacked


def from_groups(kind: str) -> AdvantageFunction:
    """One number a response, from its group alone: `group_baseline`. KL never enters it."""

    def advantage(batch: Batch, settings: AdvantageSettings, ranks: Ranks) -> Advantages:
        per_response, groups = own_baseline(batch, kind)
        spread = per_response[:, None].expand(batch.response_mask.shape)
        return Advantages(masked(spread, batch.response_mask), batch.rewards.isfinite(), _group_metrics(groups))

    return advantage


def from_returns(baseline: str | None, *, discounted: bool) -> AdvantageFunction:
    """Returns of token rewards: the reward less its group's baseline on the last token, and KL on every token."""

    def advantage(batch: Batch, settings: AdvantageSettings, ranks: Ranks) -> Advantages:
        rewards, metrics = batch.rewards, {}
        if baseline is not None:
            rewards, groups = own_baseline(batch, baseline)
            metrics = _group_metrics(groups)
        valid = batch.rewards.isfinite()
        mask = batch.response_mask * valid[:, None]
        each = step_rewards(batch, rewards, mask, settings)
        found = discounted_returns(each, mask, settings.gamma if discounted else 1.0)
        return Advantages(found, valid, metrics)

    return advantage


def from_values(batch: Batch, settings: AdvantageSettings, ranks: Ranks) -> Advantages:
    """GAE of token rewards and the critic's values; the returns, which the critic learns, are never whitened."""
    valid = batch.rewards.isfinite()
    mask = batch.response_mask * valid[:, None]
    each = step_rewards(batch, batch.rewards, mask, settings)
    found, returns = generalized_advantages(each, batch.values.double(), mask, settings.gamma, settings.lambd)
    metrics = {"critic/explained_variance": explained_variance(batch.values.double(), returns, mask, ranks)}
    return Advantages(found, valid, metrics, returns)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, ranks: Ranks = ONE_RANK) -> float:
    """1 - var(R - V) / var(R) over trained tokens: 1 = perfect, 0 = as good as a constant; 0 where R is constant."""
    if constant(returns, mask, ranks):
        return 0.0
    errors, whole = moments(returns - values, mask, ranks)[1], moments(returns, mask, ranks)[1]
    return float(1 - errors / whole)


def step_rewards(batch: Batch, rewards: Tensor, mask: Tensor, settings: AdvantageSettings) -> Tensor:
    """`token_rewards` of a batch; the reference is asked for only where its KL counts."""
    if settings.kl_coef == 0:
        return token_rewards(rewards, mask, rewards, None, 0.0, settings.kl_kind)
    old, ref = batch.old_logprobs.double(), batch.ref_logprobs.double()
    return token_rewards(rewards, mask, old, ref, settings.kl_coef, settings.kl_kind)


def _group_metrics(groups: Groups) -> dict[str, float]:
    return {"reward/constant_groups_frac": float(groups.constant.double().mean())}
