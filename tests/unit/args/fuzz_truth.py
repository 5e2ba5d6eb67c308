"""What the fuzz test holds for true: a setting, a fault, and the estimators of conftest.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Good:
    """A setting that must be taken, if nothing else is wrong."""

    flag: str
    value: Any
    where: str
    typed: bool = True


@dataclass(frozen=True)
class Fault:
    """A line of the refusal must begin with `mark`; `flags` are out of play for the rules between flags."""

    mark: str
    flags: tuple[str, ...] = ()
    sure: bool = True  # False: it may go unmentioned beside other faults

    def is_named_by(self, line: str) -> bool:
        return re.match(rf"{self.mark}(?![\w-])", line) is not None


@dataclass(frozen=True)
class Estimator:
    """kl: where the KL to the reference stands when --use_kl_loss does not say it; its defaults are `own`."""

    group: bool = True  # compares the samples of one prompt
    kl: str = "loss"
    own: Mapping[str, Any] = field(default_factory=dict)
    per_row: bool = False  # one ratio for all tokens of a response
    ignores: frozenset[str] = frozenset()
    drift: bool = False
    critic: bool = False


ESTIMATORS = {
    "cpgd": Estimator(kl="off", drift=True, own={"clip_range_higher": 0.2, "kl_target": 0.01}),
    "gae": Estimator(group=False, kl="reward", critic=True),
    "group_norm": Estimator(),
    "gspo": Estimator(
        own={"clip_range": 3e-4, "clip_range_higher": 4e-4}, per_row=True, ignores=frozenset({"loss_agg_mode"})
    ),
    "reinforce": Estimator(group=False, kl="reward"),
}
