from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class EngineArgs:
    """Engine"""

    engine_type: str = arg(
        "auto",
        "Inference engine: local samples in this process from the trained model; auto = the best that is built.",
        choices=("auto", "vllm", "sglang", "local"),
        witness=Witness("--engine_type vllm", "refused"),
    )
