"""`--advantage_estimator gspo_token`: GSPO's token variant, arXiv:2507.18071, section 4.3.

    s_it = sg[s_i] exp(logprobs - sg[logprobs])       the value of the response's ratio, a gradient for each token
    L    = -mean over responses of the mean over tokens of min(s A, clip(s) A)

The same as gspo where the advantage is one number per response, which it is here; it is for advantages per token.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import token_sequence_ratio_loss, with_clip_flags

ESTIMATOR = Estimator(
    advantage=from_groups("scaled"),
    policy_loss=with_clip_flags(token_sequence_ratio_loss),
    aggregation="seq-mean-token-mean",
    per_row=True,
    judges="row",
    needs={"group"},
    defaults={"clip_range": 3e-4, "clip_range_higher": 4e-4},
    ignores={"loss_agg_mode", "dual_clip"},
    paper="arXiv:2507.18071",
)
