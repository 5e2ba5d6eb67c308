"""`--advantage_estimator rloo`: REINFORCE with a leave-one-out baseline, arXiv:2402.14740.

    A_i = R_i - mean of the other rewards of its prompt, less the KL to the reference from each token on

KL stands in the reward, token by token (k1), after the baseline. The loss per token is PPO's clipped surrogate.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_returns
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_returns("leave_one_out", discounted=False),
    policy_loss=ppo_loss,
    aggregation="token-mean",
    judges="token",
    needs={"group"},
    kl="reward",
    whitening="optional",
    ignores={"gamma"},
    paper="arXiv:2402.14740",
)
