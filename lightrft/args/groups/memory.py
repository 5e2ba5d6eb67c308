from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class MemoryArgs:
    """Memory"""

    share_prompts: bool | None = arg(
        None,
        "Compute a prompt once for all its samples in the training passes where that is cheaper.",
        unset="where the model allows it",
        witness=Witness("--no-share_prompts", "perf:train_tokens"),
    )
    adam_offload: bool = arg(
        False, "Keep the optimizer's state in host memory.", witness=Witness("--adam_offload", "run", given="--no-fsdp")
    )
    ref_offload: bool = arg(
        False,
        "Keep the reference model in host memory, from where one layer at a time visits the GPU for a pass.",
        aliases=("ref_reward_offload",),
        witness=Witness("--ref_offload", "run"),
    )
    packing_samples: bool = arg(
        False,
        "Put all samples of a micro-batch into one row, without padding.",
        witness=Witness("--packing_samples", "perf:train_tokens", given="--micro_train_batch_size 8"),
    )
    fused_linear_logprob: bool = arg(
        False,
        "Compute log-probabilities and entropies block by block, so that few logits are held at a time.",
        witness=Witness("--fused_linear_logprob", "perf:largest_logits_mib", given="--chunk_size 8"),
    )
    chunk_size: int = arg(
        4096,
        "Tokens whose logits --fused_linear_logprob makes at a time, at most.",
        ge=1,
        witness=Witness("--chunk_size 8", "perf:largest_logits_mib", given="--fused_linear_logprob"),
    )
    use_mp_opt: bool = arg(
        False,
        "FSDP: bf16 shards with an fp32 master copy in the optimizer; needs --fsdp and --bf16.",
        witness=Witness("--use_mp_opt", "run", given="--bf16"),
    )
    recompute_granularity: str = arg(
        "full",
        "What --gradient_checkpointing computes again of each layer: full = all of it; selective = all but attention, "
        "whose output is kept.",
        choices=("full", "selective"),
        witness=Witness("--recompute_granularity selective", "run", given="--gradient_checkpointing"),
    )
    activation_offload: bool = arg(
        False,
        "Keep what --gradient_checkpointing keeps of each layer, its input, in host memory until the backward pass.",
        witness=Witness("--activation_offload", "run", given="--gradient_checkpointing"),
    )
