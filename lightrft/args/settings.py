"""One setting of one flag at one place, and what is to be said about the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightrft.args.convert import Wrong
from lightrft.args.estimator_flags import estimator_fault
from lightrft.args.names import VALUES, about_value
from lightrft.args.paths import expanded
from lightrft.args.surface import Flag

ON_COMMAND_LINE = "cli"  # a place, beside run.yaml:12


@dataclass(frozen=True)
class Setting:
    flag: str
    value: Any
    where: str
    typed: bool
    name: str = ""  # of the flag on the command line, with the `no-` of a switch


@dataclass(frozen=True)
class Problem:
    """A reason to refuse; `flags` are those that it rests on."""

    flags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Notice:
    """What the user should know and may go on with; under --strict_args a problem."""

    flags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def typed_setting(flag: Flag, read: Callable[[], Any], where: str, shown: str, name: str = "") -> Setting | Problem:
    """`read()` converts the value; `shown` is the flag as the user reads it: --seed, or run.yaml:3: seed."""
    try:
        value = expanded(read()) if flag.record.path else read()
    except Wrong as wrong:
        return Problem((flag.name,), f"{shown} {wrong}")
    value = VALUES.get((flag.name, value), value) if isinstance(value, str) else value
    violation = None if value is None else _violation(flag, value)
    if violation:
        return Problem((flag.name,), f"{shown} {violation}")
    return Setting(flag.name, value, where, typed=True, name=name)


def _violation(flag: Flag, value: Any) -> str | None:
    wrong = flag.record.violation(value)
    if wrong:
        return about_value(flag.name, value) or wrong
    fault = estimator_fault(value) if flag.name == "advantage_estimator" else None
    return f"{value}: {fault}" if fault else None
