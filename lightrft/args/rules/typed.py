"""What is to be said of flags because someone typed them."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import estimator
from lightrft.args.field import as_text, items_of
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import FLAGS, Args, Flag
from lightrft.args.unbuilt import UNBUILT


def unbuilt_flags(args: Args, world_size: int) -> Iterator[Finding]:
    for flag, part in UNBUILT.items():
        if args.typed(flag):
            yield Problem((flag,), f"{_as_typed(args, flag)} is not built yet ({part}); remove it")


def _as_typed(args: Args, flag: str) -> str:
    """--seed, or run.yaml:3: seed."""
    where = args.sources[flag].where
    return f"{where}: {flag}" if ":" in where else f"--{flag}"


def unusual_values(args: Args, world_size: int) -> Iterator[Finding]:
    """An estimator with a default of its own has another scale, and 0 switches something off: no notice for these."""
    own = estimator(args).defaults
    for flag in FLAGS.values():
        if flag.record.recommended and args.typed(flag.name) and flag.name not in own:
            yield from _unusual(flag, args)


def _unusual(flag: Flag, args: Args) -> Iterator[Finding]:
    low, high = flag.record.recommended or (0, 0)
    value = args.value(flag.name)
    if any(item and not low <= item <= high for item in items_of(value)):
        yield Notice(
            (flag.name,), f"--{flag.name} {as_text(value)} is outside the recommended range {low:g} to {high:g}"
        )


RULES: tuple[Rule, ...] = (unbuilt_flags, unusual_values)
