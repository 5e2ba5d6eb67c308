from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.batching import optimizer_steps
from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def _single_rows(args: Args) -> str | None:
    scored = args.algorithm.init_kl_coef > 0 or optimizer_steps(args) > 1
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
