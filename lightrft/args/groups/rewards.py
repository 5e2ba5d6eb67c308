from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt


@dataclass(frozen=True, kw_only=True)
class RewardArgs:
    """Rewards"""

    reward_fn: tuple[str, ...] = arg(
        (),
        "Reward functions: a rule's name or file.py:function.",
        witness=Witness("--reward_fn shaped.py:length", "metrics"),
    )
    reward_weights: Mapping[str, float] = arg(
        {},
        "Weight of any part of the reward, as name=weight; a part without one weighs 1.",
        witness=Witness("--reward_weights length=2", "metrics", given="--reward_fn shaped.py:length"),
    )
    reward_running_norm: bool = unbuilt(
        "estimators", False, "Divide rewards by their running standard deviation.", "--reward_running_norm"
    )
    reward_running_norm_minus_mean: bool = unbuilt(
        "estimators", False, "Subtract their running mean as well.", "--reward_running_norm_minus_mean"
    )
    advantages_norm: bool | None = unbuilt(
        "estimators",
        None,
        "Whiten the advantages of the rollout step.",
        "--advantages_norm",
        unset="where it is part of the estimator",
    )
    advantage_clip: float = unbuilt(
        "estimators", 0.0, "Clip advantages to this size; 0 = no clipping.", "--advantage_clip 5", ge=0
    )
    reward_clip: float = unbuilt(
        "estimators", 0.0, "Clip rewards to this size; 0 = no clipping.", "--reward_clip 5", ge=0
    )
    reward_timeout: float = unbuilt(
        "rewards", 60.0, "Seconds after which a reward is given up.", "--reward_timeout 10", gt=0
    )
    reward_workers: int = unbuilt("rewards", 1, "Processes that compute rewards.", "--reward_workers 4", ge=1)
    judge_template: str | None = unbuilt(
        "rewards", None, "File with the question to a judge.", "--judge_template judge.txt", unset="a built-in one"
    )
    judge_url: str | None = unbuilt(
        "rewards", None, "OpenAI-compatible judge.", "--judge_url http://localhost:8000/v1", unset="no judge"
    )
