"""`--advantage_estimator group_norm`: GRPO, arXiv:2402.03300.

    A_i = (R_i - mean_g R) / (std_g R + 1e-6)                     one number per response, ddof 1
    l   = -min(r A, clip(r, 1 - clip_range, 1 + clip_range_higher) A),   r = exp(logprobs - old_logprobs)

A group whose rewards are all equal, or with fewer than two valid rewards, has advantage exactly 0: in float32 the
mean of equal numbers need not equal them, and a tiny std would blow the difference up. A sample with a non-finite
reward is left out of its group's statistics and does not train. KL to the reference stands in the loss (k3).
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_groups("scaled"),
    policy_loss=ppo_loss,
    aggregation="seq-mean-token-mean",
    judges="token",
    needs={"group"},
    paper="arXiv:2402.03300",
)
