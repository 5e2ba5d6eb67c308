"""Rollouts and rewards without an update: accuracy on held-out prompts with a 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from lightrft.rollouts.collector import RolloutMaker
from lightrft.rollouts.engines.base import Sampling
from lightrft.types import Prompt, Reward, Rollout

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal
FULL_MARK = 1.0 - 1e-9


@dataclass(frozen=True)
class EvalResult:
    """accuracy: the share of `n` valid responses that get full marks (1) from the first reward; Wilson interval.

    A response to which the first reward does not apply is judged by the next one that does.
    """

    accuracy: float
    n: int
    ci_low: float
    ci_high: float
    reward_mean: float
    length_mean: float
    truncated_frac: float
    invalid: int

    def metrics(self) -> dict[str, float]:
        return {f"eval/{name}": float(value) for name, value in asdict(self).items()}


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927); it stays inside [0, 1] and is right for small n."""
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (rate * (1 - rate) / n + Z95**2 / (4 * n**2)) ** 0.5
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))  # rounding may not cut the rate out


def summarise(rollouts: Sequence[Rollout], primary: str) -> EvalResult:
    valid = [r for r in rollouts if r.reward is not None and r.reward.error is None]
    right = sum(_mark(r.reward, primary) >= FULL_MARK for r in valid if r.reward is not None)
    low, high = wilson_interval(right, len(valid))
    return EvalResult(
        accuracy=right / len(valid) if valid else 0.0,
        n=len(valid),
        ci_low=low,
        ci_high=high,
        reward_mean=fmean(r.reward.total for r in valid if r.reward is not None) if valid else 0.0,
        length_mean=fmean(len(r.response_ids) for r in rollouts),
        truncated_frac=fmean(r.finish_reason == "length" for r in rollouts),
        invalid=len(rollouts) - len(valid),
    )


def _mark(reward: Reward, primary: str) -> float:
    return reward.parts[primary] if primary in reward.parts else next(iter(reward.parts.values()))


class Evaluator:
    """One response per held-out prompt. Seeds do not depend on the step, so evaluations differ by the policy only."""

    def __init__(self, maker: RolloutMaker, prompts: Sequence[Prompt], sampling: Sampling, primary: str) -> None:
        self.maker, self.prompts, self.sampling, self.primary = maker, list(prompts), sampling, primary

    def evaluate(self) -> EvalResult:
        return summarise(self.maker.make(self.prompts, 0, 1, self.sampling), self.primary)
