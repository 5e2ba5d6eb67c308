"""Which samples make which optimizer step: drawn globally from (seed, step, epoch), before ranks are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


@dataclass(frozen=True)
class MicroBatchSize:
    """How much one pass takes: so many rows, or where it is given so many tokens that the model is run on.

    shares: a prompt is computed once for rows of its group. packs: there is no padding. A row that has more tokens than
    that is a micro-batch of its own.
    """

    rows: int
    tokens: int | None = None
    shares: bool = False
    packs: bool = False

    def holds(self, index: StepIndex, rows: Sequence[int]) -> bool:
        return len(rows) <= self.rows if self.tokens is None else self._tokens(index, rows) <= self.tokens

    def _tokens(self, index: StepIndex, rows: Sequence[int]) -> int:
        """Of rows that are not packed at most: those that share a prompt may take fewer."""
        lengths, prompts = index.lengths[list(rows)], index.prompt_lengths[list(rows)]
        if not self.packs:
            return len(rows) * int(lengths.max())
        if not self.shares:
            return int(lengths.sum())
        _, first = np.unique(index.group[list(rows)], return_index=True)
        return int((lengths - prompts).sum() + prompts[first].sum())


def micro_batches(index: StepIndex, rows: Sequence[int], size: MicroBatchSize) -> list[list[int]]:
    """Rows cut into micro-batches; rows of a group stand side by side where they share a prompt, and so do rows of like
    length.

    The order does not change the gradient: every micro-batch uses the denominators of the whole part.
    """
    lengths, groups = index.lengths.tolist(), (index.group if size.shares else np.zeros_like(index.group)).tolist()
    grouped = rows_by_group(groups[row] for row in rows).items()
    longest = {group: max(lengths[rows[number]] for number in numbers) for group, numbers in grouped}
    return _filled(index, sorted(rows, key=lambda row: (-longest[groups[row]], groups[row], -lengths[row], row)), size)


def _filled(index: StepIndex, rows: Iterable[int], size: MicroBatchSize) -> list[list[int]]:
    """In the given order, as many together as go."""
    found: list[list[int]] = []
    for row in rows:
        if found and size.holds(index, [*found[-1], row]):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def cut(index: StepIndex, rows: Sequence[int], size: MicroBatchSize) -> list[list[int]]:
    """This rank's micro-batches of `rows`, as many as the rank with the most has: the rest of them are empty.

    Sharded models need every rank in every pass.
    """
    by_rank = [[row for row in rows if index.owner[row] == rank] for rank in range(index.n_ranks)]
    return _as_many(index, [micro_batches(index, rows_there, size) for rows_there in by_rank])


def passes(index: StepIndex, size: MicroBatchSize) -> list[list[int]]:
    """The same of all rows, which are scored, in the order of each rank's batch."""
    return _as_many(index, [_filled(index, index.rows_of(rank).tolist(), size) for rank in range(index.n_ranks)])


def _as_many(index: StepIndex, cuts: Sequence[list[list[int]]]) -> list[list[int]]:
    own = cuts[index.rank]
    return own + [[]] * (max(map(len, cuts)) - len(own))


def rows_that_move(index: StepIndex, rows: Sequence[int]) -> list[int]:
    """Those that can move the parameters; the others need no forward pass, and their tokens stay in the denominators.

    If none moves, the first with trained tokens is still run, so that there are metrics per token (entropy, clip
    fractions, mismatch), which are over the rows that are run.
    """
    moving = [row for row in rows if index.moves[row]]
    return moving or [row for row in rows if index.trained[row]][:1]
