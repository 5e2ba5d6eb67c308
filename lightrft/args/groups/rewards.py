from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightrft.args.field import Witness, arg


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
