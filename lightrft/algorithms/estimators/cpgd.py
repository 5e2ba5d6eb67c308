"""`--advantage_estimator cpgd`: clipped policy gradient with policy drift, arXiv:2505.12504.

    l = -min(d A, clip(d, ln(1 - clip_range), ln(1 + clip_range_higher)) A) + alpha min(sg[r] - 1, cpgd_drift_cap) d

d = logprobs - old_logprobs, r = exp(d). No ratio multiplies the policy gradient, so off-policy samples cannot blow it
up; the drift pulls every token back towards the policy that sampled it, also where the clip made the first term flat.
alpha starts at `--init_kl_coef` and is adapted to `--kl_target`. The reference model is not used, but by --use_kl_loss.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import clipped_log_ratio_loss, cpgd_drift, with_clip_flags

ESTIMATOR = Estimator(
    advantage=from_groups("scaled"),
    policy_loss=with_clip_flags(clipped_log_ratio_loss),
    aggregation="seq-mean-token-mean",
    judges="token",
    drift=cpgd_drift,
    needs={"group"},
    kl="off",
    defaults={"clip_range_higher": 0.2, "kl_target": 0.01},
    ignores={"dual_clip"},
    paper="arXiv:2505.12504",
)
