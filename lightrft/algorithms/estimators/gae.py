"""`--advantage_estimator gae`: PPO with a critic, arXiv:1707.06347, and generalised advantages, arXiv:1506.02438.

    r_t     = -beta k1_t + [t is the last token] R
    delta_t = r_t + gamma V_next - V_t        A_t = delta_t + gamma lambda A_next        returns_t = A_t + V_t

V_t is the critic's value of what stands before token t, at the time of the rollout; a response that was cut off counts
as ended, so V = 0 after its last token. Advantages are whitened over the rollout step, the critic's returns are not.
The critic gives the baseline, so one sample per prompt is enough.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_values
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_values,
    policy_loss=ppo_loss,
    aggregation="token-mean",
    judges="token",
    needs={"critic"},
    kl="reward",
    whitening="part",
    paper="arXiv:1506.02438",
)
