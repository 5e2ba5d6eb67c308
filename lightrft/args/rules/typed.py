"""What is to be said of flags because someone typed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightrft.args.conditions import estimator
from lightrft.args.field import as_text, items_of
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.rules.ignored_flags import cannot_matter
from lightrft.args.settings import ON_COMMAND_LINE, Notice, Problem
from lightrft.args.surface import FLAGS, Args, Flag, Hidden
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


def given_again(args: Args, world_size: int) -> Iterator[Finding]:
    """A script that appends an override means it; one whose lines part over time does not, so it is told. What the
    command line hides of a YAML file or a preset is no such case. A flag without any effect has a notice of its own."""
    for name, source in args.sources.items():
        value = args.value(name)
        own = [hidden for hidden in reversed(source.hides) if hidden.where == source.where == ON_COMMAND_LINE]
        others = [hidden for hidden in own if hidden.value != value]
        if any(not cannot_matter(args, name, hidden.value) for hidden in others):
            yield Notice((name,), _overridden(args, FLAGS[name], others))


def _overridden(args: Args, flag: Flag, others: Sequence[Hidden]) -> str:
    shown = " and ".join(dict.fromkeys(flag.written(hidden.value, hidden.name) for hidden in others))
    takes_several = flag.kind.shape != "one" and flag.kind.count is None
    remedy = f"; to have both, write all after one --{args.sources[flag.name].name}" if takes_several else ""
    return f"{shown} cannot matter: {args.written(flag.name)} comes later and counts{remedy}"


RULES: tuple[Rule, ...] = (unbuilt_flags, unusual_values, given_again)
