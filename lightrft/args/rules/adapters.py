"""What LoRA goes with."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import has_adapters, has_kl, kl_is_to_reference
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Problem
from lightrft.args.surface import Args


def no_dropout(args: Args, world_size: int) -> Iterator[Finding]:
    dropout = args.model.lora_dropout
    if dropout > 0:
        yield Problem(
            ("lora_dropout",),
            f"--lora_dropout {dropout:g}: the policy that is trained has to be the one that sampled, which drops "
            "nothing; use --lora_dropout 0",
        )


def biases_of_the_reference(args: Args, world_size: int) -> Iterator[Finding]:
    """The reference is the policy without its adapters, and these biases are no part of them."""
    bias = args.model.lora_bias
    if has_adapters(args) and bias != "none" and has_kl(args) and kl_is_to_reference(args):
        yield Problem(
            ("lora_bias", "init_kl_coef"),
            f"--lora_bias {bias} trains biases that the reference, the policy without its adapters, would have too; "
            "use --lora_bias none, or --init_kl_coef 0",
        )


def weights_where_they_are_held(args: Args, world_size: int) -> Iterator[Finding]:
    if has_adapters(args) and args.distributed.meta_init:
        yield Problem(("meta_init", "lora_rank", "lora_path"), "--meta_init does not read a model for LoRA; remove it")


RULES: tuple[Rule, ...] = (no_dropout, biases_of_the_reference, weights_where_they_are_held)
