"""`--engine_kwargs name=value ...`: settings for an engine itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from lightrft.args.nearest import nearest


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Values are read as in a YAML file: 8 is a number, true is a bool, [1, 2] is a list."""
    named = [pair.partition("=") for pair in pairs]
    return {name.replace("-", "_"): yaml.safe_load(value) for name, _, value in named}


def settings_fault(
    pairs: Sequence[str], taken: Collection[str] | None, barred: Mapping[str, str], engine: str
) -> str | None:
    """What is wrong with them. taken: names that the engine takes, where they are known. barred: those that cannot be
    given, and why."""
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.replace("-", "_")
        if not equals:
            return f"--engine_kwargs {pair} is not of the form name=value"
        if name in barred:
            return f"--engine_kwargs {pair}: {barred[name]}"
        if taken is not None and name not in taken:
            return f"--engine_kwargs {pair}: {engine} has no {name}{nearest(name, taken)}"
        try:
            yaml.safe_load(value)
        except yaml.YAMLError:
            return f"--engine_kwargs {pair}: {value} is not a value as in a YAML file"
    return None


def given(pairs: Sequence[str]) -> str:
    """For the line that says why an engine does not start: what may be the reason."""
    return f"; it was given --engine_kwargs {' '.join(pairs)}" if pairs else ""
