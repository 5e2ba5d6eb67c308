"""`--reward_fn reasoning_gym`: each task's own verifier, which is other people's code and may run what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from lightrft.args.groups.data import GENERATED
from lightrft.rewards.answers.extraction import answer_of
from lightrft.rewards.sandbox.process import sandbox
from lightrft.types import Prompt, Rollout


def reasoning_gym_verifier(response: str, reference: Any, rollout: Rollout) -> float:
    """The score in [0, 1] of the task's own verifier, for the response's answer."""
    if not from_gym(rollout.prompt):
        raise ValueError(f"the prompt is not from reasoning_gym (source '{rollout.prompt.source}')")
    task = rollout.prompt.source.removeprefix(GENERATED)
    answer = answer_of(response, rollout)
    entry = rollout.prompt.columns["entry"]
    return sandbox(__name__).ask("score", task, answer, entry, what=f"the verifier of {task}")


def from_gym(prompt: Prompt) -> bool:
    return prompt.source.startswith(GENERATED) and "entry" in prompt.columns


def load() -> None:
    import reasoning_gym  # noqa: F401  # now, outside of the first answer's time


def score(task: str, answer: str, entry: Mapping[str, Any]) -> float:
    """In the child."""
    return float(_verifier(task)(answer, entry))


@cache
def _verifier(task: str) -> Callable[..., float]:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(task)
