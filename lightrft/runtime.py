"""What a run chooses for its hardware, in words: the plan shows them, and run.json keeps them."""

from __future__ import annotations

from typing import Any

from lightrft.args import Args
from lightrft.args.conditions import gathers_once_a_step, has_adapters, holds_all, may_share_prompts
from lightrft.engine_choice import EngineChoice, choose_engine
from lightrft.hardware import choose_precision, hardware
from lightrft.strategy.deepspeed import effective_stage


def runtime(args: Args, *, videos: bool = False, takes_segments: bool = True) -> dict[str, Any]:
    """videos: whether prompts have any, which not all engines read. takes_segments: whether a row of the policy may
    hold several sequences."""
    machine, (precision, why) = hardware(args), choose_precision(args)
    return {
        "processes": machine.processes,
        "strategy": f"{_strategy(args, machine.processes, precision.compute)}{_laid_out(args, machine.processes)}",
        "device": machine.device,
        "precision": f"{precision.compute} ({why})",
        "engine": _engine(args, choose_engine(args, videos=videos), precision.compute),
        "training": _passes(args, takes_segments),
    }


def _strategy(args: Args, processes: int, compute: str) -> str:
    """By the library's name, also where it has nothing to do."""
    fsdp, asked = args.distributed.fsdp, args.distributed.zero_stage
    if holds_all(args, processes, compute):
        return f"{'FSDP2' if fsdp else f'deepspeed ZeRO-{asked}'} (on one process plain torch)"
    stage = effective_stage(asked, processes)
    zero = f"deepspeed ZeRO-{stage}" + (f" (as good as {asked} on one process)" if stage != asked else "")
    return "FSDP2" if fsdp else zero


def _laid_out(args: Args, processes: int) -> str:
    said = {
        "bf16 shards": args.memory.use_mp_opt,
        "whole for each step": gathers_once_a_step(args, processes),
        "each process reads its own shards": args.distributed.meta_init,
    }
    return _offloaded(args) + "".join(f", {text}" for text, is_so in said.items() if is_so)


def _offloaded(args: Args) -> str:
    if args.distributed.fsdp_cpu_offload:
        return ", offloaded to CPU"
    m, apart = args.memory, not has_adapters(args.model)
    parts = {"optimizer": m.adam_offload, "reference": m.ref_offload and apart}
    moved = " and ".join(part for part, is_moved in parts.items() if is_moved)
    return f", {moved} on the CPU" if moved else ""


def _engine(args: Args, chosen: EngineChoice, compute: str) -> str:
    dtype, processes = args.engine.engine_dtype, args.engine.engine_tp_size
    other = f"{chosen}, in {dtype}" if dtype not in ("auto", compute) else str(chosen)
    other += f", one for {processes} processes" if processes > 1 else ""
    sleeps = args.engine.enable_engine_sleep and chosen.kind != "local"
    return other + (", its sleep simulated (no GPU)" if sleeps and hardware(args).device == "cpu" else "")


def _passes(args: Args, takes_segments: bool) -> str:
    """What training passes hold and compute."""
    m = args.memory
    said = {
        "with a row for each sample": not m.packing_samples,
        "with one row for all samples of a micro-batch": m.packing_samples,
        "prompts shared where that is cheaper": takes_segments and may_share_prompts(args),
        f"logits of {m.chunk_size} tokens at most at a time": m.fused_linear_logprob,
        f"layers computed twice{_of_layers(args)}": args.distributed.gradient_checkpointing,
    }
    return ", ".join(text for text, is_so in said.items() if is_so)


def _of_layers(args: Args) -> str:
    """What is different of layers that are computed twice."""
    m = args.memory
    once = " but for attention" if m.recompute_granularity == "selective" else ""
    return once + (", their inputs on the CPU" if m.activation_offload else "")
