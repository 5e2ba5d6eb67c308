"""A user's own reward: `--reward_fn file.py:function`, called once per batch with what its signature asks for."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import numbers
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lightrft.errors import Refused, RunFailed
from lightrft.rewards.base import checked, invalid, one_line
from lightrft.types import Reward, Rollout

OFFERED: dict[str, Callable[[Rollout], Any]] = {
    "prompts": lambda rollout: [dict(message) for message in rollout.prompt.messages],
    "completions": lambda rollout: rollout.response,
    "responses": lambda rollout: rollout.response,
    "references": lambda rollout: rollout.prompt.reference,
    "rollouts": lambda rollout: rollout,
}


class FunctionReward:
    """Calls the function with keyword arguments, each a list with one item per sample.

    It may ask by name for `prompts` (chat messages), `responses` or `completions` (text of the response only),
    `references`, `rollouts`, or any data column (None for rows without it); a column of one of these five names is
    hidden. With `**kwargs` it gets all of them but `rollouts`. It returns one number per sample; None, NaN and
    infinities make a sample invalid, and an exception makes the whole call's samples invalid.

    Raises `Refused` here if the function cannot be loaded or asks for what is not there, and `RunFailed` in `score`
    if it returns something other than one number per sample.
    """

    def __init__(self, spec: str, columns: Collection[str], flag: str = "--reward_fn") -> None:
        self._label = f"{flag} {spec}"
        path, _, self.name = spec.rpartition(":")
        self._file = str(Path(path).resolve())
        self._function = _load(self._file, path, self.name, self._label)
        self._asked = _asked_for(self._function, set(columns), self._label)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        if not rollouts:
            return []
        arguments = {name: [_argument(name, rollout) for rollout in rollouts] for name in self._asked}
        try:
            values = self._function(**arguments)
        except Exception as error:  # users' code: it must not end the run
            return [invalid(f"{one_line(error)}  ({self._line_of(error)})")] * len(rollouts)
        return [self._reward(value) for value in self._listed(values, len(rollouts))]

    def _listed(self, values: Any, expected: int) -> Sequence[Any]:
        values = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
            got = type(values).__name__
            raise RunFailed(f"{self._label} returned {got}; expected a list of {expected} numbers, one per sample")
        if len(values) != expected:
            raise RunFailed(f"{self._label} returned {len(values)} values; expected {expected}, one per sample")
        return values

    def _reward(self, value: Any) -> Reward:
        if value is None:
            return invalid("the reward is None")
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if not isinstance(number, numbers.Real):
            got = " ".join(repr(value).split())[:60]
            raise RunFailed(f"{self._label} returned {got} ({type(value).__name__}) for a sample; expected a number")
        try:
            return checked(float(number))
        except OverflowError:
            return invalid("the reward is too large for a float")

    def _line_of(self, error: Exception) -> str:
        """Where in the user's file it happened; else the innermost place."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == self._file]
        frame = (own or frames)[-1]
        return f"{Path(frame.filename).name}:{frame.lineno}"


def _argument(name: str, rollout: Rollout) -> Any:
    return OFFERED[name](rollout) if name in OFFERED else rollout.prompt.columns.get(name)


def _asked_for(function: Callable[..., Any], columns: set[str], label: str) -> list[str]:
    known = {*OFFERED, *columns}
    asked: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            asked |= known - {"rollouts"}
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise Refused(f"{label}: parameter '{parameter.name}' is positional-only; all are given by keyword")
        elif parameter.name in known:
            asked.add(parameter.name)
        elif parameter.default is parameter.empty:
            there = f"{', '.join(OFFERED)}; data columns: {', '.join(sorted(columns)) or 'none'}"
            raise Refused(f"{label} asks for '{parameter.name}', which does not exist; there is {there}")
    return sorted(asked)


def _load(file: str, path: str, name: str, label: str) -> Callable[..., Any]:
    if not Path(file).is_file():
        raise Refused(f"{label}: no such file {path or '(none given)'} (looked in {Path.cwd()})")
    module = _import(file, label)
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise Refused(f"{label}: no function '{name}' in {path}; functions there: {', '.join(there) or 'none'}")
    if inspect.iscoroutinefunction(function):
        raise Refused(f"{label}: '{name}' is async; a plain function works")
    return function


def _import(file: str, label: str) -> ModuleType:
    # Known to sys.modules while it runs (dataclasses and pickle ask there), under a name that hides no other module.
    name = f"reward_file_{hashlib.sha256(file.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Refused(f"{label}: {file} is not a Python file; file.py:function works")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise Refused(f"{label}: importing the file failed: {one_line(error)}") from error
    return module
