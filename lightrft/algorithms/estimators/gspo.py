"""`--advantage_estimator gspo`: one ratio per response, arXiv:2507.18071.

    s_i = exp(mean over tokens of logprobs - old_logprobs)
    L   = -mean over responses of min(s A, clip(s, 1 - clip_range, 1 + clip_range_higher) A)

A response is clipped as a whole or not at all, and the bounds are three orders tighter than GRPO's. Advantages are
GRPO's. `--loss_agg_mode` has no say: the mean over responses is the method.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import sequence_ratio_loss, with_clip_flags

ESTIMATOR = Estimator(
    advantage=from_groups("scaled"),
    policy_loss=with_clip_flags(sequence_ratio_loss),
    aggregation="seq-mean-token-mean",
    per_row=True,
    judges="row",
    needs={"group"},
    defaults={"clip_range": 3e-4, "clip_range_higher": 4e-4},
    ignores={"loss_agg_mode", "dual_clip"},
    paper="arXiv:2507.18071",
)
