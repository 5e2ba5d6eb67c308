"""Policy losses, per token `[B, T]`; one aggregation reduces them (functional.aggregate).

Inputs are `[B, T]`; only `logprobs` carries a gradient. What goes into an exp is held within +-20, d = logprobs -
old_logprobs for a ratio per token and its mean for one per row, and nothing else is: a loss linear in d keeps its
gradient however far apart the policies are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightrft.algorithms.estimator import PolicyLoss, TokenLoss
from lightrft.algorithms.functional import bounded, distance, log_ratio, masked, ppo_clip, row_mean

if TYPE_CHECKING:
    from torch import Tensor

    from lightrft.args.groups.algorithm import AlgorithmArgs


def clipped_ratio_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    low: float,
    high: float,
    dual: float | None,
) -> TokenLoss:
    """-min(r A, clip(r, 1 - low, 1 + high) A); with `dual` = c, at most -c A where A < 0.

    PPO, arXiv:1707.06347; clip-higher: DAPO, arXiv:2503.14476; dual clip: arXiv:1912.09729.
    """
    d, advantages = log_ratio(logprobs, old_logprobs, mask), masked(advantages, mask)
    ratio = bounded(d).exp()
    fixed = ratio.detach()
    above = ((advantages > 0) & (fixed > 1 + high)).to(d.dtype)
    below = ((advantages < 0) & (fixed < 1 - low)).to(d.dtype)
    metrics = {"policy/clip_frac": above + below, "policy/clip_frac_high": above, "policy/clip_frac_low": below}
    loss = ppo_clip(ratio, advantages, low, high)
    if dual is not None:
        loss = loss.minimum(-dual * advantages).where(advantages < 0, loss)
        metrics["policy/dual_clip_frac"] = ((advantages < 0) & (fixed > dual)).to(d.dtype)
    return TokenLoss(loss, {**metrics, **_moved(d)})


def _moved(d: Tensor) -> dict[str, Tensor]:
    """How far the policy is from the old one: the k3 and the k1 estimate of KL(old || policy)."""
    return {"policy/approx_kl": distance(d), "policy/approx_kl_k1": -d.detach()}


def sequence_ratio_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> TokenLoss:
    """-min(s A, clip(s, 1 - low, 1 + high) A) on every token of a row, with s = exp(mean of d). GSPO, arXiv:2507.18071.

    Its mean over a row is the row's objective, and a clipped row has no gradient at all. A must be one number per row.
    """
    d, advantages = log_ratio(logprobs, old_logprobs, mask), masked(advantages, mask)
    assert _constant_in_rows(advantages, mask), "gspo takes one advantage per response; use gspo_token"
    ratio = bounded(row_mean(d, mask)).exp()
    loss = masked(ppo_clip(ratio, advantages, low, high), mask)
    return _with_sequence_metrics(loss, ratio.detach(), d.detach(), advantages, mask, low, high)


def token_sequence_ratio_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> TokenLoss:
    """GSPO-token: s_t = sg[s] exp(logprob - sg[logprob]) has the value of the row's ratio and a gradient per token."""
    d, advantages = log_ratio(logprobs, old_logprobs, mask), masked(advantages, mask)
    mean = row_mean(d.detach(), mask)
    own = (d - d.detach()).where(mean == bounded(mean), 0.0)  # as gspo's: no gradient beyond the bound
    ratio = (bounded(mean) + own).exp()
    loss = masked(ppo_clip(ratio, advantages, low, high), mask)
    return _with_sequence_metrics(loss, ratio.detach(), d.detach(), advantages, mask, low, high)


def _with_sequence_metrics(
    loss: Tensor, ratio: Tensor, d: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> TokenLoss:
    """clip_frac: tokens whose ratio is clipped; clip_frac_seq: rows with such a token."""
    clipped = (((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))).to(d.dtype)
    metrics = {"policy/clip_frac": clipped, **_moved(d)}
    return TokenLoss(loss, metrics, {"policy/clip_frac_seq": masked(clipped, mask).amax(-1)})


def _constant_in_rows(advantages: Tensor, mask: Tensor) -> bool:
    """Exactly: a mean of equal float32 numbers need not be equal to them."""
    infinity = float("inf")
    highest = advantages.masked_fill(mask == 0, -infinity).amax(-1)
    return bool((highest <= advantages.masked_fill(mask == 0, infinity).amin(-1)).all())


def geometric_mean_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> TokenLoss:
    """-rho A on every token of a row, rho = exp(mean of e); e = min(d, high) where A > 0, max(d, -low) where A < 0.

    GMPO, arXiv:2507.20673: the clip is per token, in log space, on the side of A's sign, and before the mean. A clipped
    token loses its own gradient only.
    """
    d, advantages = log_ratio(logprobs, old_logprobs, mask), masked(advantages, mask)
    near = bounded(d)
    clipped = near.clamp(max=high).where(advantages > 0, near.clamp(min=-low).where(advantages < 0, near))
    loss = masked(-row_mean(clipped, mask).exp() * advantages, mask)
    above = ((advantages > 0) & (d.detach() > high)).to(d.dtype)
    below = ((advantages < 0) & (d.detach() < -low)).to(d.dtype)
    metrics = {"policy/clip_frac": above + below, "policy/clip_frac_high": above, "policy/clip_frac_low": below}
    return TokenLoss(loss, {**metrics, **_moved(d)})


def clipped_log_ratio_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> TokenLoss:
    """-min(d A, clip(d, ln(1 - low), ln(1 + high)) A): no ratio multiplies the gradient. CPGD, arXiv:2505.12504."""
    d, advantages = log_ratio(logprobs, old_logprobs, mask), masked(advantages, mask)
    inside = d.clamp(math.log1p(-low), math.log1p(high))
    loss = -(d * advantages).minimum(inside * advantages)
    fixed = d.detach()
    above = ((advantages > 0) & (fixed > math.log1p(high))).to(d.dtype)
    below = ((advantages < 0) & (fixed < math.log1p(-low))).to(d.dtype)
    metrics = {"policy/clip_frac": above + below, "policy/clip_frac_high": above, "policy/clip_frac_low": below}
    return TokenLoss(loss, {**metrics, **_moved(d)})


def drift_loss(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, cap: float) -> TokenLoss:
    """min(sg[r] - 1, cap) d: the gradient of the k3 estimate of KL(old || policy), its *coefficient* capped.

    CPGD, arXiv:2505.12504, equation 2. Never negative, 0 on policy; it acts where the policy term is clipped, too.
    """
    d = log_ratio(logprobs, old_logprobs, mask)
    excess = bounded(d.detach()).expm1()
    metrics = {"policy/drift_clip_frac": (excess > cap).to(d.dtype)}
    return TokenLoss(excess.clamp(max=cap) * d, metrics)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None) -> TokenLoss:
    """max((V - R)^2, (V_clip - R)^2) / 2 with V_clip = V_old + clip(V - V_old, -clip, clip). PPO's critic."""
    values, old_values, returns = (masked(x, mask) for x in (values, old_values, returns))
    error = (values - returns).square()
    if clip is None:
        return TokenLoss(error / 2, {"critic/clip_frac": error.detach() * 0})
    near = values.clamp(old_values - clip, old_values + clip)  # a sum would round, and count as clipped what is not
    clipped_error = (near - returns).square()
    # `where`, not `maximum`: on a tie the unclipped branch has the whole gradient.
    loss = clipped_error.where(clipped_error > error, error) / 2
    return TokenLoss(loss, {"critic/clip_frac": (clipped_error > error).to(error.dtype).detach()})


# What an estimator declares as its `policy_loss`: the same with their bounds from the flags.


def ppo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, args: AlgorithmArgs
) -> TokenLoss:
    given = (logprobs, old_logprobs, advantages, response_mask)
    return clipped_ratio_loss(*given, args.clip_range, args.clip_range_higher, args.dual_clip)


def with_clip_flags(loss: Callable[..., TokenLoss]) -> PolicyLoss:
    """`loss(logprobs, old_logprobs, advantages, mask, low, high)` between --clip_range and --clip_range_higher."""

    def policy_loss(
        logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, response_mask: Tensor, args: AlgorithmArgs
    ) -> TokenLoss:
        given = (logprobs, old_logprobs, advantages, response_mask)
        return loss(*given, args.clip_range, args.clip_range_higher)

    return policy_loss


def cpgd_drift(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, args: AlgorithmArgs) -> TokenLoss:
    return drift_loss(logprobs, old_logprobs, mask, args.cpgd_drift_cap)
