"""What a run computes on, and in which precision: this machine's hardware, or what `--assume_gpus` says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightrft.args import Args
from lightrft.args.hardware import assumed_gpus, processes_started
from lightrft.errors import Refused
from lightrft.strategy.base import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """This machine, or what `--assume_gpus` says; `gigabytes` per GPU are known for the latter only."""

    processes: int
    device: str
    bf16: bool
    gigabytes: float | None = None


def hardware(args: Args) -> Hardware:
    gpus, on_gpu = assumed_gpus(args), torch.cuda.is_available()
    if gpus:
        return Hardware(gpus.count, f"{gpus.count} x {gpus.gigabytes:g} GB GPU (assumed)", True, gpus.gigabytes)
    return Hardware(processes_started(), "cuda" if on_gpu else "cpu", on_gpu and torch.cuda.is_bf16_supported())


HOST_ALREADY = "everything is in host memory as it is"
ON_GPUS = {
    "activation_offload": HOST_ALREADY,
    "adam_offload": HOST_ALREADY,
    "fsdp_cpu_offload": HOST_ALREADY,
    "ref_offload": HOST_ALREADY,
    "overlap_comm": "gloo overlaps nothing",
}


def told_without_gpu(args: Args) -> list[str]:
    """Flags that are set and that only a GPU makes a difference to, where there is none."""
    flags = [flag for flag in ON_GPUS if args.value(flag)] if hardware(args).device == "cpu" else []
    return [f"--{flag} cannot matter on this machine: it has no GPU, so {ON_GPUS[flag]}" for flag in flags]


def choose_precision(args: Args) -> tuple[Precision, str]:
    """The compute precision and why it was chosen."""
    machine = hardware(args)
    if args.distributed.fp16:
        if machine.device == "cpu":
            raise Refused("--fp16 needs a GPU, and this machine has none; leave it out, or use --bf16")
        return Precision("fp16"), "--fp16"
    if args.memory.use_mp_opt and args.distributed.bf16 is None and not machine.bf16:
        raise Refused("--use_mp_opt keeps bf16 shards, and without a GPU that has bf16 it is off; add --bf16")
    if args.distributed.bf16 is None:
        return Precision("bf16" if machine.bf16 else "fp32"), "the GPU has bf16" if machine.bf16 else "no GPU with bf16"
    asked = "bf16" if args.distributed.bf16 else "fp32"
    return Precision(asked), "--bf16" if args.distributed.bf16 else "--no-bf16"
