"""`--advantage_estimator reinforce`: REINFORCE++, arXiv:2501.03262.

    r_t = -beta k1_t + [t is the last token] R        G_t = r_t + gamma G_next
    A   = (G - mean G) / sqrt(max(var G, 1e-8))       over every trained token of the rollout step

No group and no critic: the whole step is the baseline, so one sample per prompt is enough.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_returns
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_returns(None, discounted=True),
    policy_loss=ppo_loss,
    aggregation="token-mean",
    judges="token",
    kl="reward",
    whitening="part",
    paper="arXiv:2501.03262",
)
