"""Which samples make which optimizer step: drawn globally from (seed, step, epoch), before ranks are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightrft.groups import rows_by_group
from lightrft.step_index import StepIndex


@dataclass(frozen=True)
class Part:
    """The rows of the rollout step, those of all ranks, that one optimizer step learns from.

    critic_alone: the policy does not learn yet (`--freezing_actor_steps`). turn: of the loop.
    """

    rows: tuple[int, ...]
    epoch: int
    critic_alone: bool = False
    turn: int = 0


def draw_parts(
    n_rows: int, train_batch_size: int, max_epochs: int, *, seed: int, turn: int, critic_alone: bool = False
) -> Iterator[Part]:
    """`max_epochs` passes over the rollout step, each cut into n_rows / train_batch_size parts.

    A step with fewer rows than asked for (samples dropped, groups missing) gives its last part what is left.
    """
    for epoch in range(max_epochs):
        order = np.random.default_rng((seed, turn, epoch)).permutation(n_rows).tolist()
        for start in range(0, n_rows, train_batch_size):
            yield Part(tuple(sorted(order[start : start + train_batch_size])), epoch, critic_alone, turn)


def micro_batches(rows: Sequence[int], groups: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows cut into micro-batches of at most `size`; rows of a group stand side by side, and so do rows of like length.

    The order does not change the gradient: every micro-batch uses the denominators of the whole part.
    """
    grouped = rows_by_group(groups[row] for row in rows).items()
    longest = {group: max(lengths[rows[number]] for number in numbers) for group, numbers in grouped}
    ordered = sorted(rows, key=lambda row: (-longest[groups[row]], groups[row], -lengths[row], row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def cut(index: StepIndex, rows: Sequence[int], size: int, *, by_group: bool) -> list[list[int]]:
    """This rank's micro-batches of `rows`, as many as the rank with the most has: the rest of them are empty.

    Sharded models need every rank in every pass. by_group: rows of a group stand side by side.
    """
    groups, lengths = (index.group if by_group else np.zeros_like(index.group)).tolist(), index.lengths.tolist()
    by_rank = [[row for row in rows if index.owner[row] == rank] for rank in range(index.n_ranks)]
    cuts = [micro_batches(rows_there, groups, lengths, size) for rows_there in by_rank]
    own = cuts[index.rank]
    return own + [[]] * (max(map(len, cuts)) - len(own))


def rows_that_move(index: StepIndex, rows: Sequence[int]) -> list[int]:
    """Those that can move the parameters; the others need no forward pass, and their tokens stay in the denominators.

    If none moves, the first with trained tokens is still run, so that there are metrics per token (entropy, clip
    fractions, mismatch), which are over the rows that are run.
    """
    moving = [row for row in rows if index.moves[row]]
    return moving or [row for row in rows if index.trained[row]][:1]
