"""`--advantage_estimator reinforce_baseline`: REINFORCE++-baseline, arXiv:2501.03262.

    R'_i = R_i - mean_g R, then as reinforce with gamma 1

The group's mean takes a question's difficulty out; whitening over the step gives the scale.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_returns
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_returns("centred", discounted=False),
    policy_loss=ppo_loss,
    aggregation="token-mean",
    judges="token",
    needs={"group"},
    kl="reward",
    whitening="part",
    ignores={"gamma"},
    paper="arXiv:2501.03262",
)
