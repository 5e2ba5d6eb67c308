"""Where the KL term stands, by which estimator, and how fast its coefficient adapts."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.batching import prompts_per_step, samples_of
from lightrft.args.conditions import estimator, has_kl, kl_adapts, kl_place
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args


def place_of_kl(args: Args, world_size: int) -> Iterator[Finding]:
    name, coefficient = args.algorithm.advantage_estimator, args.algorithm.init_kl_coef
    if coefficient > 0 and args.algorithm.use_kl_loss is False and estimator(args).kl == "loss":
        yield Problem(
            ("use_kl_loss", "init_kl_coef", "advantage_estimator"),
            f"--no-use_kl_loss with --init_kl_coef {as_text(coefficient)}: --advantage_estimator {name} puts no KL "
            "into the reward, so KL has no place; use --init_kl_coef 0 or --use_kl_loss",
        )


def kl_estimator(args: Args, world_size: int) -> Iterator[Finding]:
    """As a loss k1 has no gradient in expectation; in the reward k2 and k3 have a biased one (algorithms S6.2).

    With --use_kl_loss the KL to the reference is in the loss beside a drift, too.
    """
    a = args.algorithm
    place = "loss" if a.use_kl_loss else kl_place(args)
    flags = ("kl_estimator", "use_kl_loss", "init_kl_coef", "advantage_estimator")
    if has_kl(args) and place == "loss" and a.kl_estimator == "k1":
        yield Notice(
            flags,
            "--kl_estimator k1 in the loss has an expected gradient of zero, so it is noise and no penalty; "
            "use --kl_estimator k3 or k2",
        )
    if has_kl(args) and place == "reward" and a.kl_estimator != "k1":
        yield Notice(
            flags, f"--kl_estimator {a.kl_estimator} in the reward gives a biased gradient; use --kl_estimator k1"
        )


def kl_horizon(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    samples = samples_of(args, prompts_per_step(args))
    typed = args.typed("kl_horizon") or args.typed("kl_target")
    if typed and kl_adapts(args) and samples > a.kl_horizon:
        yield Notice(
            ("kl_horizon", "kl_target"),
            f"--kl_horizon {a.kl_horizon} is shorter than a step of {samples} samples, which counts as one horizon; "
            f"use --kl_horizon {samples} or more",
        )


RULES: tuple[Rule, ...] = (place_of_kl, kl_estimator, kl_horizon)
