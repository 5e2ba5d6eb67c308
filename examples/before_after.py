"""Prints what runs changed: `python examples/before_after.py "name=folder of a run" …`, read from summary.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def accuracy(result: dict) -> str:
    if result["accuracy"] is None:
        return "none"
    interval = f"[{result['ci_low']:.2f}, {result['ci_high']:.2f}]"
    return f"{result['accuracy']:.2f} {interval}"


def describe(name: str, folder: Path) -> list[str]:
    summary = json.loads((folder / "summary.json").read_text())
    reward = f"reward of the first step {summary['reward_first']:.2f}, of the last {summary['reward_last']:.2f}"
    evaluated = summary.get("eval") or {}
    if "before" in evaluated and "after" in evaluated:
        before, after = evaluated["before"], evaluated["after"]
        held_out = f"held-out accuracy {accuracy(before)} -> {accuracy(after)}, n = {after['n']}, 95 % intervals"
    else:
        held_out = "no held-out accuracy"
    return [f"{name}: {held_out}; {reward}", f"    model {folder}, logs and plots {folder / 'logs'}"]


def main() -> None:
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        if (Path(folder) / "summary.json").is_file():  # --print_args and --dry_run write none
            print("\n".join(describe(name, Path(folder))))


if __name__ == "__main__":
    main()
