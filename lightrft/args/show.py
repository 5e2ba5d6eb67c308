"""The arguments as `--print_args` shows them and as run.json keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightrft.args.field import as_text
from lightrft.args.surface import FLAGS, GROUPS, Args


def print_args(args: Args, form: str) -> str:
    return json.dumps(as_dict(args), indent=2, ensure_ascii=False) if form == "json" else _text(args)


def as_dict(args: Args) -> dict[str, dict[str, Any]]:
    """{flag: {"value", "source"}}, and "hides" where a weaker source set the flag too."""
    return {flag: _entry(args, flag) for flag in FLAGS}


def _entry(args: Args, flag: str) -> dict[str, Any]:
    source = args.sources[flag]
    entry = {"value": _plain(args.value(flag)), "source": source.where}
    hides = [{"source": hidden.where, "value": _plain(hidden.value)} for hidden in source.hides]
    return {**entry, "hides": hides} if hides else entry


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _text(args: Args) -> str:
    names = max(map(len, FLAGS))
    values = min(40, max(len(as_text(args.value(flag))) for flag in FLAGS))
    lines: list[str] = []
    for group, cls in GROUPS.items():
        lines.append(cls.__doc__ or group)
        for flag in (flag.name for flag in FLAGS.values() if flag.group == group):
            lines.append(f"  {flag:<{names}}  {as_text(args.value(flag)):<{values}}  {args.sources[flag]}")
    return "\n".join(lines)
