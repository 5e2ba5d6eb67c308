"""What the critic of `gae` needs: rates, steps, a value head."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import has_adapters, has_critic, policy_learning_rate
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args


def learning_rates(args: Args, world_size: int) -> Iterator[Finding]:
    flag = "lora_learning_rate" if has_adapters(args.model) else "actor_learning_rate"
    actor, critic = policy_learning_rate(args), args.training.critic_learning_rate
    if has_critic(args) and actor >= critic:
        yield Notice(
            (flag, "critic_learning_rate"),
            f"--{flag} {as_text(actor)} is not below --critic_learning_rate {as_text(critic)}; the critic "
            f"usually learns faster, as with --critic_learning_rate {10 * actor:g}",
        )


def frozen_steps(args: Args, world_size: int) -> Iterator[Finding]:
    frozen, steps = args.model.freezing_actor_steps, args.training.max_steps
    if has_critic(args) and steps is not None and frozen >= steps:
        yield Notice(
            ("freezing_actor_steps", "max_steps"),
            f"--freezing_actor_steps {frozen} leaves the policy none of --max_steps {steps} to learn in",
        )


def value_head(args: Args, world_size: int) -> Iterator[Finding]:
    name = args.model.value_head_prefix
    if has_critic(args) and (not name or "." in name):
        yield Problem(
            ("value_head_prefix",),
            f"--value_head_prefix {name or repr(name)} is not the name of one module; use one without dots, as in "
            "--value_head_prefix score",
        )


RULES: tuple[Rule, ...] = (learning_rates, frozen_steps, value_head)
