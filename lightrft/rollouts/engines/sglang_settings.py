"""What SGLang says to settings, asked in a process of its own: the trainer's does not import it. Nothing is started.

A value is looked at as SGLang does on its command line, which its Engine does not, and then all of them together. The
answer is {"names": what ServerArgs takes, "name": the setting whose value is wrong, "fault": what is wrong}; null where
that is nothing.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import inspect
import json
import sys
from typing import Any

from lightrft.errors import error_text


def check_settings() -> None:
    """Reads {"chosen": settings, "by_hand": the names that the user wrote} and writes the answer on its last line."""
    from sglang.srt.server_args import ServerArgs

    asked = json.load(sys.stdin)
    chosen, names = asked["chosen"], list(inspect.signature(ServerArgs).parameters)
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    options = {each.dest: each for each in parser._actions}
    takes = {name: _takes(options[name], chosen[name]) for name in asked["by_hand"] if name in options}
    wrong = next((name for name, others in takes.items() if others), None)
    fault = f"SGLang takes {takes[wrong]}" if wrong else None
    if not fault and set(asked["by_hand"]) <= set(names):
        fault = _refusal(ServerArgs, chosen)
    print("\n" + json.dumps({"names": names, "name": wrong, "fault": fault}))


def _takes(option: argparse.Action, value: Any) -> str | None:
    """What it takes where this is none of it."""
    values = value if isinstance(value, list) else [value]
    if value is None or (option.nargs == 0 and isinstance(value, bool)):
        return None
    if option.nargs == 0:
        return "true or false"
    if option.choices and any(each not in option.choices for each in values):
        return ", ".join(map(str, option.choices))
    kinds = {int: int, float: (int, float)}.get(option.type, object)  # pyright: ignore
    fits = all(isinstance(each, kinds) and (kinds is object or not isinstance(each, bool)) for each in values)
    return None if fits else "a number" if option.type is float else "a whole number"


def _refusal(settings: Any, chosen: dict[str, Any]) -> str | None:
    try:
        made = settings(**chosen)
        made.resolve_once()
        made.check_server_args()
    except Exception as error:
        return f"SGLang refuses it: {error_text(error, most=300)}"
    return None


if __name__ == "__main__":
    check_settings()
