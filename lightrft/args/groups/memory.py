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
