"""Metrics of a rollout step that need no tensors: rewards, their parts, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from lightrft.types import Outcome, Rollout


def rollout_metrics(rollouts: Sequence[Rollout | Outcome]) -> dict[str, float]:
    """reward/* over the valid samples, rollout/* over all; std is over samples (population).

    reward/<part> is over the valid samples that have the part, and absent in a step where none has it.
    """
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    valid = [reward for reward in rewards if reward.error is None]
    totals = [reward.total for reward in valid]
    lengths = [rollout.length for rollout in rollouts]
    names = sorted({name for reward in valid for name in reward.parts})
    return {
        "reward/mean": fmean(totals),
        "reward/std": pstdev(totals),
        **{f"reward/{name}": fmean(r.parts[name] for r in valid if name in r.parts) for name in names},
        "reward/invalid_frac": 1 - len(valid) / len(rollouts),
        "rollout/length_mean": fmean(lengths),
        "rollout/length_max": float(max(lengths)),
        "rollout/truncated_frac": fmean(rollout.finish_reason == "length" for rollout in rollouts),
    }
