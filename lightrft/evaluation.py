"""Rollouts and rewards without an update: accuracy on held-out prompts with a 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from lightrft.errors import RunFailed
from lightrft.ranks.together import together
from lightrft.rollouts.collector import RolloutMaker
from lightrft.rollouts.engines.base import Sampling
from lightrft.types import Outcome, Prompt, Reward, Rollout

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal
FULL_MARK = 1.0 - 1e-9
IMAGES_AT_ONCE = 4  # times the prompts that are decoded together: their images are held


@dataclass(frozen=True)
class EvalResult:
    """accuracy: the share of `n` valid responses that get full marks (1) from the first reward; Wilson interval.

    A response to which the first reward does not apply is judged by the next one that does. With no valid response
    there is no accuracy, interval or mean reward (None). `error` is the most frequent reason of the invalid ones.
    """

    accuracy: float | None
    n: int
    ci_low: float | None
    ci_high: float | None
    reward_mean: float | None
    length_mean: float
    truncated_frac: float
    invalid: int
    error: str | None = None

    def metrics(self) -> dict[str, float]:
        """What there is a number for."""
        values = asdict(self)
        del values["error"]
        return {f"eval/{name}": float(value) for name, value in values.items() if value is not None}


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion of n > 0 (Wilson 1927); it stays inside [0, 1] and is right for small n."""
    rate = successes / n
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (rate * (1 - rate) / n + Z95**2 / (4 * n**2)) ** 0.5
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))  # rounding may not cut the rate out


def summarise(rollouts: Sequence[Rollout | Outcome], primary: str) -> EvalResult:
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    valid = [reward for reward in rewards if reward.error is None]
    errors = Counter(reward.error for reward in rewards if reward.error is not None)
    right = sum(_mark(reward, primary) >= FULL_MARK for reward in valid)
    low, high = wilson_interval(right, len(valid)) if valid else (None, None)
    return EvalResult(
        accuracy=right / len(valid) if valid else None,
        n=len(valid),
        ci_low=low,
        ci_high=high,
        reward_mean=fmean(reward.total for reward in valid) if valid else None,
        length_mean=fmean(rollout.length for rollout in rollouts),
        truncated_frac=fmean(rollout.finish_reason == "length" for rollout in rollouts),
        invalid=len(rollouts) - len(valid),
        error=errors.most_common(1)[0][0] if errors else None,
    )


def _mark(reward: Reward, primary: str) -> float:
    return reward.parts[primary] if primary in reward.parts else next(iter(reward.parts.values()))


class Evaluator:
    """One response per held-out prompt. Seeds do not depend on the step, so evaluations differ by the policy only."""

    def __init__(self, maker: RolloutMaker, prompts: Sequence[Prompt], sampling: Sampling, primary: str) -> None:
        self.maker, self.prompts, self.sampling, self.primary = maker, list(prompts), sampling, primary
        self.counted: dict[str, float] = {}

    def evaluate(self) -> EvalResult:
        """Each rank answers its share of the prompts, and all know the result."""
        outcomes = [outcome for prompts in self._parts() for outcome in self._outcomes(prompts)]
        self.counted = self.maker.stats("perf/eval_")
        everyones = self.maker.ranks.gather(outcomes)
        if not everyones:
            raise RunFailed(f"none of the {len(self.prompts)} prompts of --eval_data can be used; mend their images")
        return summarise(everyones, self.primary)

    def _parts(self) -> Iterator[Sequence[Prompt]]:
        """This rank's share: texts at once, images some at a time, which are large. All ranks have as many parts."""
        intake, most = self.maker.intake, len(self.prompts)
        if intake.sees:
            most = self.maker.at_once * IMAGES_AT_ONCE * self.maker.ranks.size
        for start in range(0, len(self.prompts), most):
            yield intake.share(self.prompts[start : start + most])

    def _outcomes(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        with together(self.maker.ranks):
            readable = self.maker.intake.readable(prompts)
        return [rollout.outcome for rollout in self.maker.make(readable, 0, 1, self.sampling)]

    def stats(self) -> dict[str, float]:
        """What the engine counted in the last evaluation."""
        return self.counted
