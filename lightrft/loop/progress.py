"""How far a run is: for checkpoints, for summary.json and for the reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any


@dataclass
class Progress:
    """Every checkpoint holds it. eval_before and eval_after: evaluations before and after training."""

    total_steps: int
    step: int = 0
    reward_first: float | None = None
    reward_last: float | None = None
    eval_before: dict[str, Any] | None = None
    eval_after: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        return self.step >= self.total_steps

    def advance(self) -> None:
        self.step += 1

    def end(self) -> None:
        """Makes the step that is done the last one, where the data end before `total_steps`."""
        self.total_steps = self.step

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes all from a checkpoint but total_steps, which the resumed run's flags decide.

        Raises `ValueError` for a damaged one.
        """
        for name in ("reward_first", "reward_last"):
            setattr(self, name, _checked(name, state[name], Real))
        for name in ("eval_before", "eval_after"):
            setattr(self, name, _checked(name, state[name], dict))
            if state[name] is not None:
                describe(state[name])
        self.step = int(state["step"])

    def summary(self) -> dict[str, Any]:
        evaluations = {"before": self.eval_before, "after": self.eval_after}
        return {
            "steps": self.step,
            "reward_first": self.reward_first,
            "reward_last": self.reward_last,
            "eval": {name: result for name, result in evaluations.items() if result is not None},
        }


def _checked(name: str, value: Any, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}")
    return value


def describe(result: Mapping[str, Any]) -> str:
    """An evaluation in one line."""
    if result["accuracy"] is None:
        return f"none: not one of {result['invalid']} responses could be judged ({result['error']})"
    reason = f" ({result['error']})" if result.get("error") else ""  # older checkpoints have none
    invalid = f", {result['invalid']} invalid{reason}" if result["invalid"] else ""
    interval = f"[{result['ci_low']:.3f}, {result['ci_high']:.3f}]"
    return f"{result['accuracy']:.3f} {interval} on {result['n']} prompts{invalid}"


def steps_in_summary(path: Path) -> int:
    """Of the summary.json of an earlier run; 0 where there is none, or none that can be read."""
    try:
        return int(json.loads(path.read_text())["steps"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0
