"""A batch by hand, with the index that the exchange between ranks would have given it."""

from __future__ import annotations

from collections.abc import Sequence


def indexed(batch, owner: Sequence[int] = (), rank: int = 0):
    """The batch with its index, as it is now: all rows are here, or those that `owner` [B] gives to `rank`."""
    import numpy as np

    from lightrft.step_index import StepIndex
    from lightrft.types import Outcome, Reward

    owner = np.array(owner or [0] * len(batch), dtype=int)
    batch_row = np.array([(owner[:row] == owner[row]).sum() for row in range(len(owner))], dtype=int)
    columns = ("group", "prompt_lengths", "lengths", "rewards")
    index = StepIndex(
        rank=rank,
        n_ranks=int(owner.max()) + 1,
        owner=owner,
        batch_row=batch_row,
        outcomes=tuple(Outcome(Reward(total), 0, "stop") for total in batch.rewards.tolist()),
        trained=batch.response_mask.sum(-1).numpy(),
        moves=(batch.advantages != 0).any(-1).numpy() if batch.has("advantages") else owner >= 0,
        **{name: getattr(batch, name).numpy() for name in columns},
    )
    return (batch.select(np.flatnonzero(owner == rank).tolist()) if owner.any() else batch).filled(index=index)
