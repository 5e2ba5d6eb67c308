"""A user's own reward: `--reward_fn file.py:function`, called with what its signature asks for."""

from __future__ import annotations

import inspect
import numbers
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from lightrft.errors import Refused, RunFailed, error_text
from lightrft.ranks.pulse import PULSE
from lightrft.rewards.base import MOST_OF_AN_ERROR, checked, invalid
from lightrft.rewards.signatures import read_signature
from lightrft.types import Prompt, Reward, Rollout
from lightrft.user_code.module import helpers_of, own_module

ERRORS = (Exception, SystemExit)  # of users' code: they must not end the run


@dataclass(frozen=True)
class Failed:
    """Why there is no reward. `in_program`: the function returned no number, which is not the sample's fault."""

    reason: str
    in_program: bool = False


class NoReward(Exception):
    """The function returned no reward; the text says what it returned."""


class FunctionReward:
    """A function of this trainer's, of TRL's or of verl's convention; see `signatures.py` for what each is given.

    Called with keyword arguments: once per batch, each argument a list with one item per sample, or once per sample
    (verl). It returns one number per sample, or verl's mapping that has a "score". What is no number, or none that
    float32 holds (NaN too), makes its sample invalid; None does, but from a function of TRL's it says that it does not
    apply to the sample. A call for a batch that raises, or does not return an item per sample, is made once more for
    each sample alone, so that one odd response is one invalid sample.

    Raises `Refused` here if the function cannot be loaded or asks for something that does not exist, and `RunFailed` in
    `score` if it returns no number for any sample.
    """

    def __init__(self, spec: str, columns: Collection[str], flag: str = "--reward_fn") -> None:
        self._label = f"{flag} {spec}"
        path, _, self.name = spec.rpartition(":")
        self._module = own_module(path, self._label)
        self._function = _function_of(self._module, self.name, path, self._label)
        self._signature = read_signature(self._function, set(columns), self._label)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises `Refused` if the function asks for a column that none of these prompts has."""
        read_signature(self._function, {column for prompt in prompts for column in prompt.columns}, self._label)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward | None]:
        with helpers_of(self._module):
            per_sample = self._signature.convention.per_sample
            rewards = [self._of_one(rollout) for rollout in rollouts] if per_sample else self._of_all(rollouts)
        failures = [reward for reward in rewards if isinstance(reward, Failed)]
        if failures and len(failures) == len(rewards) and failures[0].in_program:
            raise RunFailed(f"{self._label} {failures[0].reason}")
        return [invalid(reward.reason) if isinstance(reward, Failed) else reward for reward in rewards]

    def _of_all(self, rollouts: Sequence[Rollout]) -> Sequence[Reward | Failed | None]:
        together = self._of_batch(rollouts)
        if not isinstance(together, Failed):
            return together
        alone = [self._of_batch([rollout]) for rollout in rollouts] if len(rollouts) > 1 else [together]
        failing = sum(isinstance(one, Failed) for one in alone)
        if failing == len(alone) or (together.in_program and not failing):
            return [together] * len(rollouts)  # no sample's fault; one that compares samples fails otherwise on one
        return [one if isinstance(one, Failed) else one[0] for one in alone]

    def _of_batch(self, rollouts: Sequence[Rollout]) -> list[Reward | Failed | None] | Failed:
        if not rollouts:
            return []
        samples = [self._signature.arguments(rollout) for rollout in rollouts]
        try:
            values = self._function(**{name: [sample[name] for sample in samples] for name in self._signature.asked})
            return [self._item(value) for value in _listed(values, len(rollouts))]
        except ERRORS as error:
            return self._failed(error)

    def _of_one(self, rollout: Rollout) -> Reward | Failed | None:
        try:
            value = self._function(**self._signature.arguments(rollout))
            if isinstance(value, Mapping):
                if "score" not in value:
                    raise NoReward(f"returned a mapping without 'score'; keys: {', '.join(map(str, value))}")
                value = value["score"]
            return self._item(value)
        except ERRORS as error:
            return self._failed(error)

    def _item(self, value: Any) -> Reward | Failed | None:
        PULSE.beat()
        if value is None:
            return None if self._signature.convention.none_is_no_answer else invalid("the reward is None")
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if not isinstance(number, (numbers.Real, Decimal)):
            shown = " ".join(repr(value).split())[:60]
            return Failed(f"returned {shown} ({type(value).__name__}) for a sample; expected a number", in_program=True)
        try:
            return checked(float(number))
        except OverflowError:
            return invalid("the reward is too large for a float")

    def _failed(self, error: BaseException) -> Failed:
        """With the line of the user's file where it happened; else the innermost place."""
        if isinstance(error, NoReward):
            return Failed(str(error), in_program=True)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == self._module.__file__]
        frame = (own or frames)[-1]
        return Failed(f"{error_text(error, MOST_OF_AN_ERROR)}  ({Path(frame.filename).name}:{frame.lineno})")


def _listed(values: Any, expected: int) -> Sequence[Any]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise NoReward(f"returned {type(values).__name__}; expected a list of {expected} numbers, one per sample")
    if len(values) != expected:
        raise NoReward(f"returned {len(values)} values; expected {expected}, one per sample")
    return values


def _function_of(module: ModuleType, name: str, path: str, label: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise Refused(f"{label}: no function '{name}' in {path}; functions there: {', '.join(functions) or 'none'}")
    if inspect.iscoroutinefunction(function):
        raise Refused(f"{label}: '{name}' is async; a plain function works")
    return function
