"""`--advantage_estimator dr_grpo`: GRPO done right, arXiv:2503.20783.

    A_i = R_i - mean_g R            no division by the std, which favours questions that are almost solved or hopeless
    L   = sum l / (rows * max_new_tokens)       a constant in place of each length, which favours long wrong answers

The loss per token is GRPO's. Exact unbiasedness would take the mean of the others: rloo, which is n / (n - 1) of this.
"""

from __future__ import annotations

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator
from lightrft.algorithms.losses import ppo_loss

ESTIMATOR = Estimator(
    advantage=from_groups("centred"),
    policy_loss=ppo_loss,
    aggregation="seq-mean-token-sum-norm",
    judges="token",
    needs={"group"},
    whitening="optional",
    paper="arXiv:2503.20783",
)
