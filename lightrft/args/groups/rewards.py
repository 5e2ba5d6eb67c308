from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt

LONG = "--reward_fn shaped.py:length"  # a reward that varies, of a few hundred


@dataclass(frozen=True, kw_only=True)
class RewardArgs:
    """Rewards"""

    reward_fn: tuple[str, ...] = arg(
        (),
        "Reward functions: a rule's name or file.py:function.",
        witness=Witness("--reward_fn shaped.py:length", "metrics"),
        path=True,
    )
    reward_weights: Mapping[str, float] = arg(
        {},
        "Weight of any part of the reward, as name=weight; a part without one weighs 1.",
        witness=Witness("--reward_weights length=2", "metrics", given="--reward_fn shaped.py:length"),
    )
    reward_running_norm: bool = arg(
        False,
        "Divide rewards by their running standard deviation.",
        witness=Witness("--reward_running_norm", "metrics"),
    )
    reward_running_norm_minus_mean: bool = arg(
        False,
        "Subtract their running mean as well.",
        witness=Witness(
            "--reward_running_norm_minus_mean", "metrics", given=f"--reward_running_norm --reward_clip 0.5 {LONG}"
        ),
    )
    advantages_norm: bool | None = arg(
        None,
        "Whiten the advantages of the rollout step.",
        unset="where it is part of the estimator",
        aliases=("normalize_advantages",),
        witness=Witness(
            "--no-advantages_norm",
            "model",
            given=f"--advantage_estimator reinforce --actor_learning_rate 1e-2 --lr_warmup_steps 0 {LONG}",
        ),
    )
    advantage_clip: float = arg(
        0.0,
        "Clip advantages to this size; 0 = no clipping.",
        ge=0,
        witness=Witness("--advantage_clip 0.1", "metrics", given=LONG),
    )
    reward_clip: float = arg(
        0.0,
        "Clip rewards to this size; 0 = no clipping.",
        ge=0,
        witness=Witness("--reward_clip 1.0", "metrics", given=LONG),
    )
    reward_timeout: float = unbuilt(
        "rewards", 60.0, "Seconds after which a reward is given up.", "--reward_timeout 10", gt=0
    )
    reward_workers: int = unbuilt("rewards", 1, "Processes that compute rewards.", "--reward_workers 4", ge=1)
    judge_template: str | None = unbuilt(
        "rewards",
        None,
        "File with the question to a judge.",
        "--judge_template judge.txt",
        unset="a built-in one",
        path=True,
    )
    judge_url: str | None = unbuilt(
        "rewards", None, "OpenAI-compatible judge.", "--judge_url http://localhost:8000/v1", unset="no judge"
    )
