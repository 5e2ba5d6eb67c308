"""What the processes, the precision and the offloading need."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.batching import around
from lightrft.args.conditions import has_kl, kl_is_to_reference
from lightrft.args.field import as_text
from lightrft.args.hardware import assumed_gpus, nearest_gpus
from lightrft.args.rules.finding import Finding, Rule, either, processes
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import FLAGS, Args


def assumed_hardware(args: Args, world_size: int) -> Iterator[Finding]:
    text = args.run.assume_gpus
    if text is not None and assumed_gpus(args) is None:
        what = "is not a number of GPUs x the gigabytes of each"
        yield Problem(("assume_gpus",), f"--assume_gpus {text!r} {what}; {nearest_gpus(text)} works")


GROUP_SIZES = ("engine_tp_size", "sp_size", "zpg", "hybrid_shard_size", "ref_shard_size")
AMONG_SEVERAL = ("overlap_comm", "dist_timeout_s", "fsdp_reshard")


def sizes_of_process_groups(args: Args, world_size: int) -> Iterator[Finding]:
    """Of an engine, of processes that share a sequence, and of those that share one copy of a model."""
    for flag in GROUP_SIZES:
        size = args.value(flag) or 1
        if flag == "ref_shard_size" and not (has_kl(args) and kl_is_to_reference(args)):
            continue  # there is no reference, as rules/ignored_flags.py says
        if flag == "engine_tp_size" and args.engine.engine_type == "local":
            continue  # refused whatever the number of processes, by engine_choice.py
        legal = [n for n in range(1, world_size + 1) if world_size % n == 0]
        if world_size % size:
            remedy = f"use --{flag} {either(around(size, legal))}"
            remedy += f", or start {size} processes with torchrun" * (world_size == 1 and args.run.assume_gpus is None)
            yield Problem((flag, "assume_gpus"), f"--{flag} {size} does not divide {processes(world_size)}; {remedy}")


def attention_of_shared_sequences(args: Args, world_size: int) -> Iterator[Finding]:
    kernel, size = args.model.attn_implementation, args.distributed.sp_size
    if size > 1 and kernel not in (None, "sdpa"):
        yield Problem(
            ("attn_implementation", "sp_size"),
            f"--attn_implementation {kernel} does not reach over the processes of --sp_size {size}; use sdpa",
        )


def attention_of_several_sequences_in_a_row(args: Args, world_size: int) -> Iterator[Finding]:
    kernel = args.model.attn_implementation
    if kernel in (None, "sdpa"):
        return
    for flag in ("packing_samples", "share_prompts"):
        if args.value(flag):
            what = f"--attn_implementation {kernel} lets the sequences that --{flag} lays in a row see each other"
            yield Problem(("attn_implementation", flag), f"{what}; use sdpa")


def attention_that_is_kept(args: Args, world_size: int) -> Iterator[Finding]:
    kernel, d = args.model.attn_implementation, args.distributed
    if d.gradient_checkpointing and args.memory.recompute_granularity == "selective" and kernel not in (None, "sdpa"):
        yield Problem(
            ("attn_implementation", "recompute_granularity"),
            f"--attn_implementation {kernel} keeps nothing for --recompute_granularity selective; use sdpa, or full",
        )


def precision(args: Args, world_size: int) -> Iterator[Finding]:
    if args.distributed.fp16 and args.distributed.bf16:
        yield Problem(("fp16", "bf16"), "--fp16 and --bf16 exclude each other; use --bf16 alone, or --fp16 --no-bf16")
    if args.distributed.fp16 and args.distributed.fsdp:
        yield Problem(
            ("fp16", "fsdp"), "--fp16 needs loss scaling, which --fsdp has not; use --bf16 with --fsdp, or --no-fsdp"
        )


def of_fsdp_alone(args: Args, world_size: int) -> Iterator[Finding]:
    for flag in ("fsdp_cpu_offload", "hybrid_shard_size", "use_mp_opt", "fsdp_reshard"):
        value = args.value(flag)
        if value != FLAGS[flag].record.default and not args.distributed.fsdp:
            shown = f"--{flag}" if value is True else f"--{flag} {value}"
            yield Problem((flag, "fsdp"), f"{shown} needs --fsdp; add --fsdp or remove it")
        elif flag == "fsdp_reshard" and args.typed(flag) and not args.distributed.fsdp:
            yield Notice((flag,), f"--fsdp_reshard {value} cannot matter: there is no --fsdp")


def of_bf16_alone(args: Args, world_size: int) -> Iterator[Finding]:
    if args.memory.use_mp_opt and args.distributed.fsdp and args.distributed.bf16 is False:
        text = "--use_mp_opt keeps bf16 shards, and --no-bf16 computes in float32; add --bf16 or remove it"
        yield Problem(("use_mp_opt", "bf16"), text)


def of_stage_3_alone(args: Args, world_size: int) -> Iterator[Finding]:
    d = args.distributed
    if d.zpg > 1 and (d.fsdp or d.zero_stage < 3):
        remedy = f"use {'--no-fsdp ' if d.fsdp else ''}--zero_stage 3, or remove it"
        yield Problem(("zpg", "fsdp", "zero_stage"), f"--zpg {d.zpg} needs stage 3 of DeepSpeed ZeRO; {remedy}")
    elif d.zpg == world_size > 1:
        text = (
            f"--zpg {d.zpg} cannot matter: all {processes(world_size)} would share the second copy as they do the first"
        )
        yield Notice(("zpg",), text)


def of_shards_alone(args: Args, world_size: int) -> Iterator[Finding]:
    """What a process reads by itself is a shard of each weight."""
    d = args.distributed
    if d.meta_init and not d.fsdp and d.zero_stage < 3:
        text = f"--meta_init is of no use with --zero_stage {d.zero_stage}, whose processes hold whole models"
        yield Problem(("meta_init", "fsdp", "zero_stage"), f"{text}; use --fsdp or --zero_stage 3, or remove it")
    elif d.meta_init and d.zpg > 1 and not d.fsdp:
        text = f"--meta_init does not read the second copies of --zpg {d.zpg}"
        yield Problem(("meta_init", "zpg"), f"{text}; use --fsdp with --hybrid_shard_size {d.zpg}, or --zpg 1")


def among_several_processes(args: Args, world_size: int) -> Iterator[Finding]:
    told_elsewhere = {"overlap_comm": args.distributed.fsdp, "fsdp_reshard": not args.distributed.fsdp}
    for flag in AMONG_SEVERAL:
        if world_size == 1 and args.typed(flag) and not told_elsewhere.get(flag):
            value = args.value(flag)
            shown = f"--{flag}" if isinstance(value, bool) else f"--{flag} {as_text(value)}"
            yield Notice((flag,), f"{shown} cannot matter: there is one process, which waits for no other")


def watchdog_before_timeout(args: Args, world_size: int) -> Iterator[Finding]:
    watchdog, timeout = args.run.watchdog_s, args.distributed.dist_timeout_s
    if world_size > 1 and watchdog is not None and watchdog >= timeout:
        yield Notice(
            ("watchdog_s", "dist_timeout_s"),
            f"--watchdog_s {watchdog:g}: a process that waits for another one fails after --dist_timeout_s {timeout:g} "
            f"already, and says less; use a smaller --watchdog_s or a larger --dist_timeout_s",
        )


RULES: tuple[Rule, ...] = (
    watchdog_before_timeout,
    assumed_hardware,
    sizes_of_process_groups,
    attention_of_shared_sequences,
    attention_of_several_sequences_in_a_row,
    attention_that_is_kept,
    precision,
    of_fsdp_alone,
    of_bf16_alone,
    of_stage_3_alone,
    of_shards_alone,
    among_several_processes,
)
