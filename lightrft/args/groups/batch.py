from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class BatchArgs:
    """Batch"""

    train_batch_size: int = arg(
        None,
        "Samples of one optimizer step; divides or is a multiple of rollout_batch_size x n_samples_per_prompt.",
        ge=1,
        required=True,
        witness=Witness("--train_batch_size 8", "metrics"),
    )
    micro_train_batch_size: int = arg(
        1,
        "Samples of one forward and backward pass on one process.",
        ge=1,
        witness=Witness("--micro_train_batch_size 4", "perf:train_micro_batches"),
    )
    rollout_batch_size: int = arg(
        None,
        "Prompts sent to the engine together.",
        ge=1,
        required=True,
        witness=Witness("--rollout_batch_size 8", "metrics"),
    )
    micro_rollout_batch_size: int = arg(
        2,
        "Prompts that the in-process engine decodes together, and whose samples form one scoring micro-batch.",
        ge=1,
        witness=Witness("--micro_rollout_batch_size 4", "perf:decode_batches"),
    )
    max_tokens_per_micro_batch: int | None = arg(
        None,
        "Tokens that the model is run on in one pass, in training and in scoring, in place of a number of samples.",
        ge=1,
        unset="samples are counted",
        witness=Witness("--max_tokens_per_micro_batch 24", "perf:train_micro_batches"),
    )
