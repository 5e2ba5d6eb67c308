"""What is to be said of flags because someone typed them."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.estimators import estimator_defaults
from lightrft.args.field import as_text, items_of
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import FLAGS, Args, Flag
from lightrft.args.unbuilt import UNBUILT


def typed_flags_are_built(args: Args, world_size: int) -> Iterator[Finding]:
    for flag, part in UNBUILT.items():
        if args.typed(flag):
            yield Problem((flag,), f"{_as_typed(args, flag)} is not built yet ({part}); remove it")


def _as_typed(args: Args, flag: str) -> str:
    """--seed, or run.yaml:3: seed."""
    where = args.sources[flag].where
    return f"{where}: {flag}" if ":" in where else f"--{flag}"


def typed_flags_matter(args: Args, world_size: int) -> Iterator[Finding]:
    for flag in FLAGS.values():
        reason = flag.record.matters(args) if flag.record.matters and args.typed(flag.name) else None
        if reason:
            shown = f"--{flag.name} {as_text(args.value(flag.name))}" if not flag.is_switch else f"--{flag.name}"
            yield Notice((flag.name,), f"{shown} cannot matter: {reason}")


def typed_values_are_usual(args: Args, world_size: int) -> Iterator[Finding]:
    """An estimator with a default of its own has another scale, and 0 switches something off: no notice for these."""
    own = estimator_defaults(args.algorithm.advantage_estimator)
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


RULES: tuple[Rule, ...] = (typed_flags_are_built, typed_flags_matter, typed_values_are_usual)
