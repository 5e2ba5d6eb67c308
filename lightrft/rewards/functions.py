"""A user's own reward: `--reward_fn file.py:function`, called with what its signature asks for."""

from __future__ import annotations

import inspect
import numbers
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightrft.errors import Refused, RunFailed
from lightrft.own_module import own_module
from lightrft.rewards.base import checked, invalid, one_line
from lightrft.rewards.signatures import read_signature
from lightrft.types import Reward, Rollout

FAILURES = (Exception, SystemExit)  # of users' code: it must not end the run


class FunctionReward:
    """A function of this trainer's, of TRL's or of verl's convention; see `signatures.py` for what each is given.

    Called with keyword arguments: once per batch, each argument a list with one item per sample, or once per sample
    (verl). It returns one number per sample, or verl's mapping that has a "score". None, NaN and infinities make a
    sample invalid, but None from a function of TRL's says that it does not apply to the sample. An exception makes
    the call's samples invalid.

    Raises `Refused` here if the function cannot be loaded or asks for what is not there, and `RunFailed` in `score`
    if it returns something other than a number for a sample.
    """

    def __init__(self, spec: str, columns: Collection[str], flag: str = "--reward_fn") -> None:
        self._label = f"{flag} {spec}"
        path, _, self.name = spec.rpartition(":")
        self._file = str(Path(path).resolve())
        self._function = _load(path, self.name, self._label)
        self._signature = read_signature(self._function, set(columns), self._label)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward | None]:
        if self._signature.convention.per_sample:
            return [self._score_one(rollout) for rollout in rollouts]
        return self._score_all(rollouts) if rollouts else []

    def _score_all(self, rollouts: Sequence[Rollout]) -> list[Reward | None]:
        samples = [self._signature.arguments(rollout) for rollout in rollouts]
        try:
            values = self._function(**{name: [sample[name] for sample in samples] for name in self._signature.asked})
        except FAILURES as error:
            return [self._failed(error)] * len(rollouts)
        return [self._reward(value) for value in self._listed(values, len(rollouts))]

    def _score_one(self, rollout: Rollout) -> Reward | None:
        try:
            value = self._function(**self._signature.arguments(rollout))
        except FAILURES as error:
            return self._failed(error)
        if isinstance(value, Mapping):
            if "score" not in value:
                raise RunFailed(f"{self._label} returned a mapping without 'score'; keys: {', '.join(map(str, value))}")
            value = value["score"]
        return self._reward(value)

    def _listed(self, values: Any, expected: int) -> Sequence[Any]:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
            got = type(values).__name__
            raise RunFailed(f"{self._label} returned {got}; expected a list of {expected} numbers, one per sample")
        if len(values) != expected:
            raise RunFailed(f"{self._label} returned {len(values)} values; expected {expected}, one per sample")
        return values

    def _reward(self, value: Any) -> Reward | None:
        if value is None:
            return None if self._signature.convention.none_is_no_answer else invalid("the reward is None")
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if not isinstance(number, numbers.Real):
            got = " ".join(repr(value).split())[:60]
            raise RunFailed(f"{self._label} returned {got} ({type(value).__name__}) for a sample; expected a number")
        try:
            return checked(float(number))
        except OverflowError:
            return invalid("the reward is too large for a float")

    def _failed(self, error: BaseException) -> Reward:
        """With the line of the user's file where it happened; else the innermost place."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == self._file]
        frame = (own or frames)[-1]
        return invalid(f"{one_line(error)}  ({Path(frame.filename).name}:{frame.lineno})")


def _load(path: str, name: str, label: str) -> Callable[..., Any]:
    module = own_module(path, label)
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise Refused(f"{label}: no function '{name}' in {path}; functions there: {', '.join(there) or 'none'}")
    if inspect.iscoroutinefunction(function):
        raise Refused(f"{label}: '{name}' is async; a plain function works")
    return function
