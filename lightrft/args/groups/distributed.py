from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class DistributedArgs:
    """Distributed"""

    zero_stage: int = arg(
        2,
        "DeepSpeed ZeRO stage: 1, 2 or 3; on one process 2 runs as 1, and in float32 neither is needed.",
        ge=1,
        le=3,
        witness=Witness("--zero_stage 3", "run", given="--no-fsdp"),
    )
    fsdp: bool = arg(False, "FSDP2 in place of DeepSpeed.", witness=Witness("--no-fsdp", "run"))
    fsdp_cpu_offload: bool = arg(
        False,
        "Keep FSDP's shards in host memory between uses; needs --fsdp.",
        witness=Witness("--fsdp_cpu_offload", "gpu"),
    )
    fsdp_reshard: str = arg(
        "layer",
        "When FSDP gives gathered weights back and shares gradients out: layer = after each layer of every pass; "
        "step = once for an optimizer step, which holds all of both. step needs --fsdp.",
        choices=("layer", "step"),
        witness=Witness("--fsdp_reshard step", "refused", given="--no-fsdp"),
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
    sp_size: int = arg(
        1,
        "Processes that share one sequence in the training passes, each with a part of it.",
        ge=1,
        witness=Witness("--sp_size 2", "refused"),
    )
    zpg: int = arg(
        1,
        "ZeRO++: processes that share a second copy of the weights, for the backward pass; of --zero_stage 3; 1 = off.",
        ge=1,
        witness=Witness("--zpg 2", "refused", given="--no-fsdp --zero_stage 3"),
    )
    hybrid_shard_size: int | None = arg(
        None,
        "Processes that share one copy of FSDP's shards; needs --fsdp.",
        ge=1,
        unset="all",
        witness=Witness("--hybrid_shard_size 2", "refused"),
    )
    overlap_comm: bool | None = arg(
        None,
        "DeepSpeed: exchange gradients while the backward pass goes on, on GPUs.",
        unset="on for --zero_stage 3 on GPUs",
        witness=Witness("--overlap_comm", "refused", given="--no-fsdp --strict_args", without="--actor_learning_rate"),
    )
    ref_shard_size: int | None = arg(
        None,
        "Processes that share one copy of the reference model.",
        ge=1,
        unset="as many as share the weights of the policy",
        witness=Witness("--ref_shard_size 2", "refused"),
    )
    meta_init: bool = arg(
        False,
        "Make models without memory; then each process reads its own shards from the files, and none holds a whole "
        "model. Needs --fsdp or --zero_stage 3.",
        witness=Witness("--meta_init", "run"),
    )
    dist_timeout_s: float = arg(
        1800.0,
        "Seconds after which processes that wait for another one fail.",
        gt=0,
        witness=Witness("--dist_timeout_s 60", "refused", given="--strict_args", without="--actor_learning_rate"),
    )
    gradient_checkpointing: bool = arg(
        False,
        "Compute activations twice in place of keeping them: each layer again in the backward pass.",
        witness=Witness("--gradient_checkpointing", "run"),
    )
