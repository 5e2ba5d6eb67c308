"""Whose convention a reward function follows, by the names of its parameters; and its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from lightrft.errors import Refused
from lightrft.prompts.media.marks import text_of
from lightrft.types import Rollout

Offer = Mapping[str, Callable[[Rollout], Any]]
ATOMS = (str, int, float, bool, bytes, type(None))


def copied(value: Any) -> Any:
    """The value for one call and one sample: a function that changes it changes nothing for the others.

    Rows are mostly texts, which cost nothing, and lists of them, for which `deepcopy` takes three times as long.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind([copied(item) for item in value])
    return deepcopy(value)


def _copied_rollout(rollout: Rollout) -> Rollout:
    prompt = rollout.prompt
    own = replace(
        prompt,
        messages=tuple(_messages(rollout)),
        reference=copied(prompt.reference),
        columns=copied(dict(prompt.columns)),
    )
    return replace(rollout, prompt=own)


def _messages(rollout: Rollout) -> list[dict[str, Any]]:
    return [copied(dict(message)) for message in rollout.prompt.messages]


def _as_in_the_data(rollout: Rollout) -> Any:
    """Messages where the row held messages; where it held a text, that text."""
    return _messages(rollout) if rollout.prompt.conversational else text_of(rollout.prompt.messages[-1]["content"])


def _completion(rollout: Rollout) -> Any:
    turn = {"role": "assistant", "content": rollout.response}
    return [turn] if rollout.prompt.conversational else rollout.response


@dataclass(frozen=True)
class Convention:
    """What a function may ask for by name, for one sample: `offered`, and with `columns` any data column.

    marks: parameters that only this convention has. per_sample: it is called for each sample, not once with lists.
    none_is_no_answer: it returns None where it does not apply. unknown_here: what only its own trainer gives.
    """

    name: str
    marks: frozenset[str]
    offered: Offer
    columns: bool = True
    per_sample: bool = False
    none_is_no_answer: bool = False
    unknown_here: frozenset[str] = frozenset()


OWN = Convention(
    name="this trainer's",
    marks=frozenset({"responses", "references", "rollouts"}),
    offered={
        "prompts": _messages,
        "responses": lambda rollout: rollout.response,
        "references": lambda rollout: copied(rollout.prompt.reference),
        "rollouts": _copied_rollout,
    },
)
TRL = Convention(
    name="TRL's",
    marks=frozenset({"completions", "completion_ids"}),
    offered={
        "prompts": _as_in_the_data,
        "completions": _completion,
        "completion_ids": lambda rollout: list(rollout.response_ids),
    },
    none_is_no_answer=True,
    unknown_here=frozenset({"trainer_state", "log_extra", "log_metric", "environments"}),
)
VERL = Convention(
    name="verl's",
    marks=frozenset({"solution_str"}),
    offered={
        "data_source": lambda rollout: rollout.prompt.source,
        "solution_str": lambda rollout: rollout.response,
        "ground_truth": lambda rollout: copied(rollout.prompt.reference),
        "extra_info": lambda rollout: copied(rollout.prompt.columns.get("extra_info") or {}),  # as verl does
    },
    columns=False,
    per_sample=True,
)
NOT_IN_KWARGS = {"rollouts"}  # only for functions that name it


@dataclass(frozen=True)
class Signature:
    convention: Convention
    asked: tuple[str, ...]

    def arguments(self, rollout: Rollout) -> dict[str, Any]:
        """By keyword, for one sample, and its own copies; a column that the row does not have is None."""
        return {name: self._argument(name, rollout) for name in self.asked}

    def _argument(self, name: str, rollout: Rollout) -> Any:
        offered = self.convention.offered
        return offered[name](rollout) if name in offered else copied(rollout.prompt.columns.get(name))


def read_signature(function: Callable[..., Any], columns: Set[str], label: str) -> Signature:
    """Raises `Refused` for a function that mixes conventions or asks for something that does not exist."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        raise Refused(f"{label} does not tell its parameters; a function that is written in Python works") from None
    convention = _convention({parameter.name for parameter in parameters}, columns, label)
    available = {*convention.offered, *(columns if convention.columns else ())}
    asked: set[str] = set()
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            asked |= available - NOT_IN_KWARGS
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise Refused(f"{label}: parameter '{parameter.name}' is positional-only; all are given by keyword")
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name in available:
            asked.add(parameter.name)
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.default is parameter.empty:
            raise Refused(f"{label} asks for '{parameter.name}', {_why_missing(parameter.name, convention, columns)}")
    return Signature(convention, tuple(sorted(asked)))


def _convention(names: Set[str], columns: Set[str], label: str) -> Convention:
    """A function of TRL's may ask for a data column that has one of our names, so such a column is no mark of ours."""
    marked = [(OWN, (OWN.marks - columns) & names), (TRL, TRL.marks & names), (VERL, VERL.marks & names)]
    fitting = [(convention, marks) for convention, marks in marked if marks]
    if len(fitting) > 1:
        mixed = " and ".join(f"{convention.name} ({', '.join(sorted(marks))})" for convention, marks in fitting)
        raise Refused(f"{label} mixes conventions: {mixed}; a function follows one of them")
    return fitting[0][0] if fitting else OWN


def _why_missing(name: str, convention: Convention, columns: Set[str]) -> str:
    if name in convention.unknown_here:
        return f"which {convention.name} own trainer alone can give; {name}=None works"
    offered = ", ".join(convention.offered)
    if convention.columns:
        offered += f"; data columns: {', '.join(sorted(columns)) or 'none'}"
    return f"which does not exist; in {convention.name} convention there is {offered}"
