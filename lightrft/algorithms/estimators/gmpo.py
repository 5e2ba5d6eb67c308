"""`--advantage_estimator gmpo`: the geometric mean of the token ratios, arXiv:2507.20673.

    e_t = min(d_t, clip_range_higher) where A > 0, max(d_t, -clip_range) where A < 0;  d = logprobs - old_logprobs
    L   = -mean over responses of A exp(mean of e)

The clips are widths in log space (0.4 each), per token, and before the mean: an outlier drops its own gradient alone.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import geometric_mean_loss, with_clip_flags

ESTIMATOR = Estimator(
    advantage=from_groups("scaled"),
    policy_loss=with_clip_flags(geometric_mean_loss),
    aggregation="seq-mean-token-mean",
    per_row=True,
    judges="row",
    needs={"group"},
    defaults={"clip_range": 0.4, "clip_range_higher": 0.4},
    ignores={"loss_agg_mode", "dual_clip"},
    paper="arXiv:2507.20673",
)
