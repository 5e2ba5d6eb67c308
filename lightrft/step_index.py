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
from lightrft.types import valid_total

if TYPE_CHECKING:
    from lightrft.ranks.base import Ranks
    from lightrft.types import Outcome, Rollout

NOT_SCORED = "it was not scored"


@dataclass(frozen=True)
class StepIndex:
    """Arrays [R] over the rows of all ranks, in the order (group, sample), whichever rank holds them.

    owner: the rank that holds a row; batch_row: which row of that rank's batch it is. rewards: float64, NaN = invalid
    sample; outcomes: what came of each row, with its raw reward. trained: tokens that are trained on; moves: whether a
    row has an advantage that is not 0.
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
    outcomes: tuple[Outcome, ...]
    trained: np.ndarray
    moves: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    @property
    def errors(self) -> list[str | None]:
        """Why a row's sample is invalid; None of one that is valid."""
        return [NOT_SCORED if o.reward is None else o.reward.error for o in self.outcomes]

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


@dataclass(frozen=True)
class Fact:
    """What a rank tells of one of its rows; in this order rows are sorted."""

    group: int
    sample: int
    owner: int
    batch_row: int
    prompt_length: int
    trained: int
    outcome: Outcome

    @property
    def length(self) -> int:
        return self.prompt_length + self.outcome.length

    @property
    def place(self) -> tuple[int, int, int, int]:
        return self.group, self.sample, self.owner, self.batch_row


def facts_of(rollouts: Sequence[Rollout], rank: int) -> list[Fact]:
    """What a rank tells of its rows."""
    return [
        Fact(r.group, r.sample, rank, batch_row, len(r.prompt_ids), sum(r.response_mask), r.outcome)
        for batch_row, r in enumerate(rollouts)
    ]


def index_of(facts: Sequence[Fact], rank: int, n_ranks: int) -> StepIndex:
    """facts: of all ranks, in any order."""
    assert facts, "a rollout step has rows, on one rank at least"
    ordered = sorted(facts, key=lambda fact: fact.place)
    outcomes = tuple(fact.outcome for fact in ordered)
    return StepIndex(
        rank=rank,
        n_ranks=n_ranks,
        group=np.array([fact.group for fact in ordered]),
        owner=np.array([fact.owner for fact in ordered]),
        batch_row=np.array([fact.batch_row for fact in ordered]),
        prompt_lengths=np.array([fact.prompt_length for fact in ordered]),
        lengths=np.array([fact.length for fact in ordered]),
        rewards=np.array([valid_total(outcome.reward) for outcome in outcomes], dtype=np.float64),
        outcomes=outcomes,
        trained=np.array([fact.trained for fact in ordered]),
        moves=np.ones(len(ordered), dtype=bool),
    )
