"""Older switches, each of which means exactly one estimator or bound of today.

They are read into what they mean before anything else looks at the settings. One that contradicts what was typed beside
it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightrft.args.estimators import declared
from lightrft.args.settings import Problem, Setting
from lightrft.args.surface import FLAGS

Means = Callable[[Any, Sequence[Setting]], dict[str, Any]]
MEANS: dict[str, Means] = {  # in this order: the lower clip, which the last one copies, is then known
    "use_gspo": lambda on, known: {"advantage_estimator": "gspo"} if on else {},
    "use_cpg_loss": lambda on, known: {"advantage_estimator": "cpgd"} if on else {},
    "eps_clip": lambda value, known: {} if value is None else {"clip_range": value, "clip_range_higher": value},
    "use_clip_higher": lambda on, known: {"clip_range_higher": _lower_clip(known)} if on is False else {},
}
REFUSES = {"use_gspo": "gspo", "use_cpg_loss": "cpgd"}  # switched off, beside this estimator
RESTS_ON = {"use_clip_higher": {"clip_range", "eps_clip", "advantage_estimator", *REFUSES}}


def without_aliases(settings: Sequence[Setting | Problem]) -> list[Setting | Problem]:
    """The settings, followed by what the older switches among them mean; a contradiction is a problem.

    What is broken somewhere means nothing and contradicts nothing: its own line is enough."""
    broken = {flag for entry in settings if isinstance(entry, Problem) for flag in entry.flags}
    last = {entry.flag: entry for entry in settings if isinstance(entry, Setting) and entry.flag not in broken}
    meant: list[Setting] = []
    for alias in MEANS:
        if alias in last and not broken & RESTS_ON.get(alias, set()):
            meant += _meaning(last[alias], [*last.values(), *meant])
    return [*settings, *_contradictions(last, meant), *meant]


def _lower_clip(known: Sequence[Setting]) -> float:
    """--clip_range as it is going to be: set, the estimator's, or the default."""
    last = {entry.flag: entry.value for entry in known}
    name = last.get("advantage_estimator", FLAGS["advantage_estimator"].record.default)
    return last.get("clip_range", declared(name).defaults.get("clip_range", FLAGS["clip_range"].record.default))


def _meaning(entry: Setting, known: Sequence[Setting]) -> Iterator[Setting]:
    for flag, value in MEANS[entry.flag](entry.value, known).items():
        yield replace(entry, flag=flag, value=value, where=f"{entry.where}, --{entry.flag}", name="")


def _contradictions(typed: Mapping[str, Setting], meant: Sequence[Setting]) -> Iterator[Problem]:
    last = dict(typed)
    for other in meant:
        entry = last.setdefault(other.flag, other)
        if entry.value != other.value:
            yield Problem(
                (entry.flag,),
                f"--{entry.flag} {entry.value} ({entry.where}) contradicts {other.value} ({other.where}); remove one",
            )
    for switch, name in REFUSES.items():
        chosen = last.get("advantage_estimator")
        if switch in last and last[switch].value is False and chosen is not None and chosen.value == name:
            yield Problem((switch,), f"--no-{switch} contradicts --advantage_estimator {name}; remove one")
