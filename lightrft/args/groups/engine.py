from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt
from lightrft.args.groups.model import WITH_IMAGES


@dataclass(frozen=True, kw_only=True)
class EngineArgs:
    """Engine"""

    engine_type: str = arg(
        "auto",
        "Inference engine: local samples in this process; auto = vLLM where it is installed and suits, else local.",
        choices=("auto", "vllm", "sglang", "local"),
        witness=Witness("--engine_type vllm", "refused"),
    )
    engine_tp_size: int = arg(
        1,
        "Processes of one engine (tensor parallelism), for vLLM and SGLang.",
        ge=1,
        witness=Witness("--engine_tp_size 2", "refused"),
    )
    engine_mem_util: float = arg(
        0.5,
        "Share of GPU memory for the engine.",
        gt=0,
        le=1,
        recommended=(0.3, 0.9),
        witness=Witness("--engine_mem_util 0.4", "output"),
    )
    enable_engine_sleep: bool = arg(
        True,
        "Let the engine give its memory back while training runs.",
        opposites=("disable_engine_sleep",),
        witness=Witness("--no-enable_engine_sleep", "output"),
    )
    engine_dtype: str = arg(
        "auto",
        "Precision of the engine; auto = that of training. In another the local engine holds a copy of the weights.",
        choices=("auto", "fp32", "bf16", "fp16"),
        witness=Witness("--engine_dtype bf16", "metrics"),
    )
    engine_kwargs: tuple[str, ...] = arg(
        (),
        "Settings for vLLM or SGLang itself, as name=value; checked against the names and values that it takes.",
        unset="none",
        witness=Witness("--engine_kwargs max_num_seqs=8", "output"),
    )
    max_logprob_gap: float | None = arg(
        None,
        "Largest mean gap between the engine's and the trainer's log-probabilities, in nats per token.",
        gt=0,
        unset="by precision",
        witness=Witness("--max_logprob_gap 1e-12", "output"),
    )
    on_logprob_gap: str = arg(
        "warn",
        "What a larger gap does, and weights in the engine that are not those sent: its cause is named; error = it "
        "ends the run; off = nobody looks.",
        choices=("off", "warn", "error"),
        witness=Witness("--on_logprob_gap off", "output", given="--max_logprob_gap 1e-12"),
    )
    replay_sampling_mask: bool = arg(
        False,
        "Take every token's log-probability among those alone that the filters of sampling had kept; not with vLLM.",
        witness=Witness("--replay_sampling_mask", "metrics"),
    )
    oversample_ratio: float = arg(
        1.0,
        "Prompts to start for each one needed; those whose samples take longest are given up and come again later.",
        ge=1,
        recommended=(1.0, 2.0),
        witness=Witness("--oversample_ratio 1.5", "metrics"),
    )
    rm_use_engine: bool = unbuilt("engines", False, "Compute reward models in the engine.", "--rm_use_engine")
    limit_mm_image_per_prompt: int | None = arg(
        None,
        "Most images of one prompt; one with more is a bad row. The slices of a volume among the images count.",
        ge=1,
        unset="no limit",
        witness=Witness(
            "--limit_mm_image_per_prompt 1",
            "refused",
            given=f"{WITH_IMAGES} --limit_mm_image_per_prompt 2 --prompt_data pairs.jsonl",
        ),
    )
