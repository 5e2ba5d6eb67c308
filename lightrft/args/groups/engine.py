from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt


@dataclass(frozen=True, kw_only=True)
class EngineArgs:
    """Engine"""

    engine_type: str = arg(
        "auto",
        "Inference engine: local samples in this process from the trained model; auto = the best that is built.",
        choices=("auto", "local"),
        witness=Witness("--engine_type vllm", "refused"),
    )
    engine_tp_size: int = unbuilt(
        "engines", 1, "Processes of one engine (tensor parallelism).", "--engine_tp_size 2", ge=1
    )
    engine_mem_util: float = unbuilt(
        "engines",
        0.5,
        "Share of GPU memory for the engine.",
        "--engine_mem_util 0.4",
        gt=0,
        le=1,
        recommended=(0.3, 0.9),
    )
    enable_engine_sleep: bool = unbuilt(
        "engines",
        True,
        "Let the engine give its memory back while training runs.",
        "--no-enable_engine_sleep",
        opposites=("disable_engine_sleep",),
    )
    engine_dtype: str = unbuilt(
        "engines",
        "auto",
        "Precision of the engine; auto = that of training.",
        "--engine_dtype bf16",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    engine_kwargs: tuple[str, ...] = unbuilt(
        "engines", (), "Settings for the engine itself, as name=value.", "--engine_kwargs max_num_seqs=8", unset="none"
    )
    max_logprob_gap: float | None = unbuilt(
        "engines",
        None,
        "Largest mean gap between the engine's and the trainer's log-probabilities.",
        "--max_logprob_gap 0.1",
        gt=0,
        unset="by precision",
    )
    on_logprob_gap: str = unbuilt(
        "engines", "warn", "What a larger gap does.", "--on_logprob_gap stop", choices=("warn", "stop")
    )
    oversample_ratio: float = unbuilt(
        "engines",
        1.0,
        "Prompts to start for each one needed; the slowest are given up.",
        "--oversample_ratio 1.2",
        ge=1,
    )
    rm_use_engine: bool = unbuilt("engines", False, "Compute reward models in the engine.", "--rm_use_engine")
    limit_mm_image_per_prompt: int | None = unbuilt(
        "engines", None, "Most images of one prompt.", "--limit_mm_image_per_prompt 4", ge=1, unset="the engine's own"
    )
