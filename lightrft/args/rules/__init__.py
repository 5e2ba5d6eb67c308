"""What must hold between flags. Every broken rule is reported, with the values and with ones that would work."""

from __future__ import annotations

from dataclasses import replace

from lightrft.args.hardware import assumed_gpus
from lightrft.args.preset_values import with_presets
from lightrft.args.rules import (
    adapters,
    batch,
    clipping,
    critic,
    hardware,
    ignored_flags,
    inputs,
    kl,
    lengths,
    samples,
    sampling,
    typed,
)
from lightrft.args.rules.finding import Finding
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args
from lightrft.errors import Refused

SUBJECTS = (hardware, batch, samples, kl, clipping, sampling, critic, adapters, lengths, inputs, ignored_flags, typed)
RULES = tuple(rule for subject in SUBJECTS for rule in subject.RULES)


def check(args: Args, world_size: int = 1, *, strict: bool = False) -> list[Notice]:
    """The notices, or Refused with all problems, one a line; `strict` makes problems of the notices."""
    told = findings(args, world_size, strict=strict)
    problems = [entry for entry in told if isinstance(entry, Problem)]
    if problems:
        raise Refused("\n".join(map(str, problems)))
    return [entry for entry in told if isinstance(entry, Notice)]


def findings(args: Args, world_size: int, *, strict: bool = False) -> list[Finding]:
    """What all rules say of these processes, or of those that --assume_gpus names."""
    assumed = assumed_gpus(args)
    world = assumed.count if assumed else world_size
    told = [entry for rule in RULES for entry in rule(args, world)]
    told = [replace(entry, text=with_presets(args, entry.text)) for entry in told]
    return [_hardened(entry) for entry in told] if strict else told


def _hardened(entry: Finding) -> Problem:
    if isinstance(entry, Problem):
        return entry
    return Problem(entry.flags, f"{entry.text} (refused under --strict_args; remove it, or --strict_args)")
