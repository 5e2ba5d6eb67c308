"""What LoRA goes with."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import four_bits_flag, has_4_bits, has_adapters, has_kl, kl_is_to_reference
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
    if has_adapters(args.model) and bias != "none" and has_kl(args) and kl_is_to_reference(args):
        yield Problem(
            ("lora_bias", "init_kl_coef"),
            f"--lora_bias {bias} trains biases that the reference, the policy without its adapters, would have too; "
            "use --lora_bias none, or --init_kl_coef 0",
        )


def weights_where_they_are_held(args: Args, world_size: int) -> Iterator[Finding]:
    meta_init = args.distributed.meta_init
    if has_4_bits(args.model) and meta_init:
        flag = four_bits_flag(args.model)
        yield Problem(("meta_init", "bits"), f"--meta_init does not read weights for {flag}; remove one of the two")
    elif has_adapters(args.model) and meta_init and not args.distributed.fsdp:
        yield Problem(("meta_init", "lora_rank", "lora_path", "fsdp"), "--meta_init reads a model for LoRA with --fsdp")


def weights_that_do_not_train(args: Args, world_size: int) -> Iterator[Finding]:
    """Of so few bits no step of an optimizer would change any."""
    if has_4_bits(args.model) and not has_adapters(args.model):
        flag = "load_in_4bit" if args.model.load_in_4bit else "bits"
        yield Problem(
            (flag, "lora_rank"),
            f"{four_bits_flag(args.model)}: weights of 4 bits cannot train, but adapters beside them can; add "
            "--lora_rank 16, or remove it",
        )


def one_number_of_bits(args: Args, world_size: int) -> Iterator[Finding]:
    m = args.model
    if m.bits == 8:
        yield Problem(
            ("bits",),
            "--bits 8: bitsandbytes rounds what flows through such layers too, so the engine, which has weights alone, "
            "would sample from another policy; use --bits 4 or --bits 16",
        )
    elif args.typed("load_in_4bit") and m.load_in_4bit != has_4_bits(args.model):
        switch = f"--{'' if m.load_in_4bit else 'no-'}load_in_4bit"
        yield Problem(("load_in_4bit", "bits"), f"{switch} contradicts --bits {m.bits}; remove one")


RULES: tuple[Rule, ...] = (
    no_dropout,
    biases_of_the_reference,
    weights_where_they_are_held,
    weights_that_do_not_train,
    one_number_of_bits,
)
