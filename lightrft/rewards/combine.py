"""Which rewards a run has, and their weighted sum."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from lightrft.errors import Refused
from lightrft.rewards.base import RewardSource, invalid, why_no_float32
from lightrft.rewards.functions import FunctionReward
from lightrft.rewards.gym_verifier import from_gym
from lightrft.rewards.rules import GROUPS, RULES, RuleReward
from lightrft.types import Prompt, Reward, Rollout

# reward/<name> in metrics.jsonl
RESERVED = set(
    ["mean", "std", "invalid_frac", "constant_groups_frac", "overlong", "running_std", "clip_frac", "sampled_mean"]
)


class CombinedReward:
    """total = sum of weight * part; parts are unweighted and keyed by source name. A weight that is not given is the
    rule's own, and 1 for a function; `weights` are those that count.

    A sample's parts are those of the sources that apply to it, in their order; with none it is invalid, and so it is
    with any invalid part. `primary` is the first source's name. Raises `Refused` for a weight that belongs to none.
    """

    name = "total"

    def __init__(self, sources: Sequence[RewardSource], weights: Mapping[str, float]) -> None:
        names = [source.name for source in sources]
        assert len(set(names)) == len(names), "each source has a name of its own"
        _check_names(names, weights)
        self._sources = list(sources)
        own = {source.name: getattr(source, "weight", 1.0) for source in sources}
        self.weights = {name: float(weight) for name, weight in {**own, **weights}.items()}
        self.names, self.primary = names, names[0]

    def check(self, prompts: Sequence[Prompt]) -> None:
        for source in self._sources:
            source.check(prompts)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        scored = [source.score(rollouts) for source in self._sources]
        assert all(len(rewards) == len(rollouts) for rewards in scored), "a source answers for every rollout"
        names = list(self.weights)
        return [self._sum(dict(zip(names, rewards, strict=True))) for rewards in zip(*scored, strict=True)]

    def objection(self, prompt: Prompt) -> str | None:
        """Why all samples of this prompt would be invalid, where that is known beforehand."""
        rules = (source for source in self._sources if isinstance(source, RuleReward))
        return next((reason for rule in rules if (reason := rule.objection(prompt))), None)

    def _sum(self, rewards: Mapping[str, Reward | None]) -> Reward:
        applying = {name: reward for name, reward in rewards.items() if reward is not None}
        if not applying:
            return invalid(f"no reward applies to this sample: {', '.join(rewards)} returned None")
        parts = {name: reward.total for name, reward in applying.items()}
        errors = [f"{name}: {reward.error}" for name, reward in applying.items() if reward.error is not None]
        if errors:
            return Reward(total=math.nan, parts=parts, error="; ".join(errors))
        total = sum(self.weights[name] * part for name, part in parts.items())
        reason = why_no_float32(total)
        if reason is not None:
            return Reward(total=math.nan, parts=parts, error=f"the weighted sum of {', '.join(parts)} is {reason}")
        return Reward(total=total, parts=parts)


def build_rewards(reward_fn: Sequence[str], weights: Mapping[str, float], prompts: Sequence[Prompt]) -> CombinedReward:
    """The rewards that `--reward_fn` names; with none named, reasoning_gym's own verifier for its own prompts.

    `prompts` are the training prompts, whose columns functions may ask for. Raises `Refused`.
    """
    entries = list(reward_fn)
    if not entries and prompts and all(map(from_gym, prompts)):
        entries = ["reasoning_gym"]
    if not entries:
        ways = f"--reward_fn <rule> ({', '.join([*RULES, *GROUPS])}) or --reward_fn file.py:function"
        raise Refused(f"no reward is given: {ways}; prompts that are all reasoning_gym:<task> bring their own")
    columns = {column for prompt in prompts for column in prompt.columns}
    sources = [(entry, source) for entry in entries for source in _sources(entry, columns, prompts)]
    _check_distinct([entry for entry, _ in sources], [source.name for _, source in sources])
    return CombinedReward([source for _, source in sources], weights)


def _sources(entry: str, columns: set[str], prompts: Sequence[Prompt]) -> list[RewardSource]:
    if ":" in entry:
        return [FunctionReward(entry, columns)]
    if entry.endswith(".py"):
        raise Refused(f"--reward_fn {entry}: which function? {entry}:<function> works")
    if entry not in RULES and entry not in GROUPS:
        known = [*RULES, *GROUPS]
        raise Refused(f"--reward_fn {entry}: no such rule{_nearest(entry, known)}; file.py:function works too")
    rules = GROUPS.get(entry) or {entry: RULES[entry]}
    for rule in rules.values():
        if any(find_spec(package) is None for package in rule.packages):
            raise Refused(f"--reward_fn {entry} needs a package that is not installed: pip install '{rule.install}'")
    sources = [RuleReward(name, entry if entry in GROUPS else None) for name in rules]
    for source in sources:
        source.check(prompts)
    return [*sources]


def _check_distinct(entries: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        same_name = [entry for entry, its_name in zip(entries, names, strict=True) if its_name == name]
        if len(set(same_name)) > 1:
            both, key = " and ".join(same_name), f"the key of reward/{name} and --reward_weights {name}=..."
            remedy = (
                "rename all functions but one" if any(":" in entry for entry in same_name) else "leave one of them out"
            )
            raise Refused(f"--reward_fn: {both} are named '{name}', which is {key}; {remedy}")
        if len(same_name) > 1:
            times = len(same_name)
            raise Refused(f"--reward_fn names {name} {times} times; --reward_weights {name}={times} counts it as often")


def _check_names(names: list[str], weights: Mapping[str, float]) -> None:
    taken = sorted(RESERVED.intersection(names))
    if taken:
        raise Refused(f"--reward_fn: '{taken[0]}' is the name of a metric, reward/{taken[0]}; rename the function")
    for name, weight in weights.items():
        if name not in names:
            raise Refused(f"--reward_weights {name}={weight}: no reward has this name{_nearest(name, names)}")
        if not math.isfinite(weight):
            raise Refused(f"--reward_weights {name}={weight}: a weight is a finite number, such as 1.0")


def _nearest(name: str, names: Sequence[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    question = f" (did you mean {near[0]}?)" if near else ""
    return f"{question}; known: {', '.join(names)}"
