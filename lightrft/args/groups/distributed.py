from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _fsdp_instead(args: Args) -> str | None:
    return "--fsdp replaces DeepSpeed ZeRO" if args.distributed.fsdp else None


@dataclass(frozen=True, kw_only=True)
class DistributedArgs:
    """Distributed"""

    zero_stage: int = arg(
        2,
        "DeepSpeed ZeRO stage: 1, 2 or 3; on one process 2 has nothing to partition and runs as 1.",
        ge=1,
        le=3,
        matters=_fsdp_instead,
        witness=Witness("--zero_stage 3", "run", given="--no-fsdp"),
    )
    fsdp: bool = arg(False, "FSDP2 in place of DeepSpeed.", witness=Witness("--no-fsdp", "run"))
    fsdp_cpu_offload: bool = arg(
        False,
        "Keep FSDP's shards in host memory between uses; needs --fsdp.",
        witness=Witness("--fsdp_cpu_offload", "gpu"),
    )
    bf16: bool | None = arg(
        None,
        "Compute in bfloat16.",
        unset="on where the device has it, off on CPU",
        witness=Witness("--bf16", "metrics"),
    )
    fp16: bool = arg(
        False, "Compute in float16 with loss scaling; DeepSpeed only.", witness=Witness("--fp16", "refused")
    )
