"""What every rank knows of every row of the rollout step.

One exchange after the rollouts are made, one after their advantages are. What follows from the index (counts, cuts,
numbers of passes, statistics of groups, whether anything is valid) is a pure function of it: equal on all ranks by
construction, so no rank waits in a collective that another one does not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lightrft.groups import rows_by_group

if TYPE_CHECKING:
    from lightrft.ranks.base import Ranks
    from lightrft.types import Rollout


@dataclass(frozen=True)
class StepIndex:
    """Arrays [R] over the rows of all ranks, in the order (group, sample), whichever rank holds them.

    owner: the rank that holds a row; batch_row: which row of that rank's batch it is. rewards: float64, NaN = invalid
    sample; errors: why. trained: tokens that are trained on; moves: whether a row has an advantage that is not 0.
    Before advantages are made, trained counts the sampled tokens and every row moves.
    """

    rank: int
    n_ranks: int
    group: np.ndarray
    owner: np.ndarray
    batch_row: np.ndarray
    prompt_lengths: np.ndarray
    lengths: np.ndarray
    rewards: np.ndarray
    errors: tuple[str | None, ...]
    trained: np.ndarray
    moves: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    @property
    def own(self) -> np.ndarray:
        """This rank's rows, in the order of its batch."""
        return self.rows_of(self.rank)

    def rows_of(self, rank: int) -> np.ndarray:
        rows = np.flatnonzero(self.owner == rank)
        return rows[np.argsort(self.batch_row[rows], kind="stable")]

    def batch_rows(self, rows: Iterable[int]) -> list[int]:
        """Of this rank's batch, for those of the index's rows that are its own."""
        return [int(self.batch_row[row]) for row in rows if self.owner[row] == self.rank]

    def passes(self, size: int) -> int:
        """Forward passes of at most `size` rows that each rank makes over all its rows, so that all make as many."""
        return -(-int(np.bincount(self.owner, minlength=self.n_ranks).max()) // size)

    def group_tokens(self, rows: Sequence[int]) -> dict[int, float]:
        """The trained tokens of each group among the rows."""
        grouped = rows_by_group(self.group[list(rows)]).items()
        return {name: float(self.trained[[rows[number] for number in numbers]].sum()) for name, numbers in grouped}

    def with_rewards(self, rewards: np.ndarray) -> StepIndex:
        return replace(self, rewards=rewards)

    def after_advantages(self, trained: Sequence[int], moves: Sequence[bool], ranks: Ranks) -> StepIndex:
        """The step's second exchange: of each of its batch's rows a rank tells the tokens that train, and whether any
        advantage is not 0."""
        everyone = ranks.gather(list(zip(trained, moves, strict=True)))
        order = np.concatenate([self.rows_of(rank) for rank in range(self.n_ranks)])
        all_trained, all_moves = self.trained.copy(), self.moves.copy()
        all_trained[order] = [tokens for tokens, _ in everyone]
        all_moves[order] = [moves for _, moves in everyone]
        return replace(self, trained=all_trained, moves=all_moves)


def index_step(rollouts: Sequence[Rollout], ranks: Ranks) -> StepIndex:
    """The step's first exchange: each rank tells of the rollouts that it holds, which may be none."""
    return index_of(ranks.gather(facts_of(rollouts, ranks.rank)), ranks.rank, ranks.size)


def facts_of(rollouts: Sequence[Rollout], rank: int) -> list[tuple]:
    """What a rank tells of its rows: first what orders them, (group, sample, owner, batch row)."""
    return [(r.group, r.sample, rank, batch_row, *_facts(r)) for batch_row, r in enumerate(rollouts)]


def _facts(r: Rollout) -> tuple[int, int, float, str | None, int]:
    length = len(r.prompt_ids) + len(r.response_ids)
    error = "it was not scored" if r.reward is None else r.reward.error
    return len(r.prompt_ids), length, r.valid_reward, error, sum(r.response_mask)


def index_of(facts: Sequence[tuple], rank: int, n_ranks: int) -> StepIndex:
    """facts: of all ranks, in any order."""
    assert facts, "a rollout step has rows, on one rank at least"
    ordered = sorted(facts, key=lambda row: row[:4])
    group, _, owner, batch_row, prompts, lengths, rewards, errors, trained = zip(*ordered, strict=True)
    return StepIndex(
        rank=rank,
        n_ranks=n_ranks,
        group=np.array(group),
        owner=np.array(owner),
        batch_row=np.array(batch_row),
        prompt_lengths=np.array(prompts),
        lengths=np.array(lengths),
        rewards=np.array(rewards, dtype=np.float64),
        errors=errors,
        trained=np.array(trained),
        moves=np.ones(len(group), dtype=bool),
    )
