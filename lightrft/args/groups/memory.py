from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.batching import optimizer_steps
from lightrft.args.estimators import estimator_drifts
from lightrft.args.field import Witness, arg, unbuilt

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _single_rows(args: Args) -> str | None:
    a = args.algorithm
    referred = a.init_kl_coef > 0 and (a.use_kl_loss or not estimator_drifts(a.advantage_estimator))
    scored = referred or optimizer_steps(args) > 1 or 0 < a.high_entropy_token_ratio < 1
    alone = args.batch.micro_train_batch_size == 1 and not scored
    return "--micro_train_batch_size 1 has no two samples of a prompt together" if alone else None


@dataclass(frozen=True, kw_only=True)
class MemoryArgs:
    """Memory"""

    share_prompts: bool | None = arg(
        None,
        "Compute a prompt once for all its samples in the training passes where that is cheaper.",
        unset="where the model allows it",
        matters=_single_rows,
        witness=Witness("--no-share_prompts", "perf:train_tokens"),
    )
    adam_offload: bool = unbuilt("distributed", False, "Keep the optimizer's state in host memory.", "--adam_offload")
    packing_samples: bool = unbuilt(
        "distributed", False, "Put several samples into one row without padding.", "--packing_samples"
    )
    fused_linear_logprob: bool = unbuilt(
        "distributed", False, "Compute log-probabilities without keeping logits.", "--fused_linear_logprob"
    )
    chunk_size: int = unbuilt("distributed", 4096, "Tokens of one chunk of that.", "--chunk_size 1024", ge=1)
    use_mp_opt: bool = unbuilt(
        "distributed", False, "FSDP: bf16 shards with an fp32 master copy in the optimizer.", "--use_mp_opt"
    )
