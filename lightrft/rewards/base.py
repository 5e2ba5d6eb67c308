"""What every reward is: rollouts in, as many `Reward`s out; and what makes a sample invalid."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from lightrft.errors import RunFailed
from lightrft.types import Outcome, Prompt, Reward, Rollout

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
MOST_OF_AN_ERROR = 200


class RewardSource(Protocol):
    """`name` keys its part in `Reward.parts` and in `--reward_weights`."""

    name: str

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises `Refused` if it can judge none of these prompts."""
        ...

    def score(self, rollouts: Sequence[Rollout]) -> Sequence[Reward | None]:
        """One reward per rollout, in the same order; a sample that cannot be judged is `invalid`, never 0.

        None: this reward does not apply to the sample, and the others alone judge it.
        """
        ...


def invalid(error: str) -> Reward:
    """The reward of a sample that is counted and logged but not trained on."""
    return Reward(total=math.nan, error=error)


def checked(value: float) -> Reward:
    """The reward of a value, if float32 holds it; NaN, infinities and larger numbers make the sample invalid."""
    reason = why_no_float32(value)
    return Reward(total=value) if reason is None else invalid(f"the reward is {reason}")


def why_no_float32(value: float) -> str | None:
    """Why a value is no finite number in float32, as advantages have to be: 1e39 would make them all NaN."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:g}, beyond float32" if abs(value) > LARGEST_FLOAT32 else None


def describe_invalid(rollouts: Sequence[Rollout | Outcome]) -> str | None:
    """How many samples are invalid, and the most frequent reason, in words; None where all are valid."""
    errors = [rollout.reward.error for rollout in rollouts if rollout.reward is not None and rollout.reward.error]
    if not errors:
        return None
    [(error, count)] = Counter(errors).most_common(1)
    rest = f"; {len(errors) - count} for other reasons" if count < len(errors) else ""
    return f"{len(errors)} of {len(rollouts)} samples are invalid ({count}: {error}{rest})"


def check_some_valid(errors: Sequence[str | None], step: int) -> None:
    """Raises `RunFailed` with the most frequent error if not one sample of a rollout step, on any rank, is valid."""
    if errors and None not in errors:
        [(error, count)] = Counter(errors).most_common(1)
        seen = f"{count} of {len(errors)} samples: {error}"
        raise RunFailed(f"every reward of step {step} is invalid ({seen}); mend --reward_fn or the data it reads")
