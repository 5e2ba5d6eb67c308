"""Which samples make which optimizer step: drawn globally from (seed, step, epoch), before ranks are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """The rows of the rollout step that one optimizer step learns from.

    critic_alone: the policy is frozen (`--freezing_actor_steps`). step: the turn of the loop.
    """

    rows: tuple[int, ...]
    epoch: int
    critic_alone: bool = False
    step: int = 0


def draw_parts(
    n_rows: int, train_batch_size: int, max_epochs: int, *, seed: int, step: int, critic_alone: bool = False
) -> Iterator[Part]:
    """`max_epochs` passes over the rollout step, each cut into n_rows / train_batch_size parts.

    A step with fewer rows than asked for (samples dropped, groups missing) gives its last part what is left.
    """
    for epoch in range(max_epochs):
        order = np.random.default_rng((seed, step, epoch)).permutation(n_rows).tolist()
        for start in range(0, n_rows, train_batch_size):
            yield Part(tuple(sorted(order[start : start + train_batch_size])), epoch, critic_alone, step)


def micro_batches(rows: Sequence[int], groups: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows cut into micro-batches of at most `size`; rows of a group stay together, and rows of like length do.

    The order does not change the gradient: every micro-batch uses the denominators of the whole part.
    """
    longest: dict[int, int] = {}
    for row in rows:
        longest[groups[row]] = max(lengths[row], longest.get(groups[row], 0))
    ordered = sorted(rows, key=lambda row: (-longest[groups[row]], groups[row], -lengths[row], row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
