from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class EngineArgs:
    """Engine"""

    engine_type: str = arg(
        "auto",
        "Inference engine; auto = vLLM where it is installed and supports the device, else local.",
        choices=("auto", "vllm", "sglang", "local"),
        witness=Witness("--engine_type vllm", "refused"),
    )
