"""The clips of the ratio, and the band of the weights between engine and trainer."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import estimator
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args

LARGE = 0.05  # for the clip of an estimator whose own is smaller: of a whole response's ratio


def scale_of_clips(args: Args, world_size: int) -> Iterator[Finding]:
    name = args.algorithm.advantage_estimator
    own = estimator(args).defaults
    for flag in ("clip_range", "clip_range_higher"):
        if own.get(flag, LARGE) < LARGE < args.value(flag):
            yield Notice(
                (flag, "advantage_estimator"),
                f"--{flag} {as_text(args.value(flag))} hardly ever clips a response of --advantage_estimator {name}; "
                f"its own is {as_text(own[flag])}",
            )


def order_of_clips(args: Args, world_size: int) -> Iterator[Finding]:
    """A contradiction where a clip was typed; else the estimator has clips of its own."""
    a, flags = args.algorithm, ("use_clip_higher", "clip_range_higher", "clip_range", "advantage_estimator")
    if not a.use_clip_higher or a.clip_range_higher > a.clip_range:
        return
    low, high = as_text(a.clip_range), as_text(a.clip_range_higher)
    if args.typed("clip_range") or args.typed("clip_range_higher"):
        remedy = f"use --clip_range_higher {1.4 * a.clip_range:g} or leave it out"
        line = f"--use_clip_higher, but --clip_range_higher {high} is not above --clip_range {low}; {remedy}"
        yield Problem(flags, line)
    else:
        own = f"the clips of --advantage_estimator {a.advantage_estimator} are {low} and {high}"
        yield Notice(flags, f"--use_clip_higher cannot matter: {own}")


def band_of_weights(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    if a.is_correction != "off" and a.is_low is not None and a.is_low > a.is_cap:
        yield Problem(
            ("is_low", "is_cap", "is_correction"),
            f"--is_low {as_text(a.is_low)} is above --is_cap {as_text(a.is_cap)}, so no weight lies between them; "
            f"use --is_cap {as_text(a.is_low)} or more",
        )


def band_around_one(args: Args, world_size: int) -> Iterator[Finding]:
    """Where engine and trainer agree the weight is 1 up to rounding: at the edge of the band half of it is outside."""
    a = args.algorithm
    inside = (a.is_low or 0.0) < 1 < a.is_cap
    if a.is_correction in ("token_mask", "sequence_mask", "geometric") and not inside:
        low = as_text(a.is_low or 0.0)
        yield Problem(
            ("is_correction", "is_cap", "is_low"),
            f"--is_correction {a.is_correction} between {low} and {as_text(a.is_cap)} drops what engine and trainer "
            "agree on, whose weight is 1 up to rounding; use --is_low 0.5 --is_cap 2",
        )


RULES: tuple[Rule, ...] = (scale_of_clips, order_of_clips, band_of_weights, band_around_one)
