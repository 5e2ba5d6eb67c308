"""The arguments as `--print_args` shows them and as run.json keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightrft.args.effective import effective
from lightrft.args.field import as_text
from lightrft.args.rules import findings
from lightrft.args.settings import Notice
from lightrft.args.surface import FLAGS, GROUPS, Args
from lightrft.args.unbuilt import UNBUILT

WIDEST = 40  # a longer value pushes its own source to the right, and nobody else's


def print_args(args: Args, form: str) -> str:
    """`text` and `json` show every flag, `changed` those that someone, a preset or the estimator set."""
    if form == "json":
        return json.dumps(as_dict(args), indent=2)  # in ASCII, which every encoding of a terminal leaves valid
    changed = [flag for flag in FLAGS if args.sources[flag].where != "default" and flag != "print_args"]
    return _text(args, changed if form == "changed" else list(FLAGS))


def remarks(args: Args, world_size: int) -> list[str]:
    """What a run with these arguments would say of them, as that a flag cannot matter; and what would refuse it."""
    told = findings(args, world_size, strict=args.run.strict_args)
    return [f"{'notice' if isinstance(entry, Notice) else 'a run would be refused'}: {entry}" for entry in told]


def as_dict(args: Args) -> dict[str, dict[str, Any]]:
    """{flag: {"value", "source"}}, "hides" where a weaker source set the flag too, and "built" where it is not."""
    return {flag: _entry(args, flag) for flag in FLAGS}


def _entry(args: Args, flag: str) -> dict[str, Any]:
    value, where = effective(args, flag)
    entry = {"value": _plain(value), "source": where}
    hides = [{"source": hidden.where, "value": _plain(hidden.value)} for hidden in args.sources[flag].hides]
    return {**entry, **({"hides": hides} if hides else {}), **({"built": False} if flag in UNBUILT else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _text(args: Args, flags: list[str]) -> str:
    shown = {flag: _shown(args, flag) for flag in flags}
    names, values = max(map(len, flags)), min(WIDEST, max(len(value) for value, _ in shown.values()))
    lines: list[str] = []
    for group, cls in GROUPS.items():
        mine = [flag for flag in flags if FLAGS[flag].group == group]
        lines += [cls.__doc__ or group] if mine else []
        lines += [f"  {flag:<{names}}  {shown[flag][0]:<{values}}  {shown[flag][1]}" for flag in mine]
    return "\n".join(lines)


def _shown(args: Args, flag: str) -> tuple[str, str]:
    """The value and its source, in words."""
    value, where = effective(args, flag)
    hidden = ", ".join(f"{entry.where} = {as_text(entry.value)}" for entry in args.sources[flag].hides)
    source = f"{where} (hides {hidden})" if hidden else where
    return "none" if value is None else as_text(value), f"{source}, not built yet" if flag in UNBUILT else source
