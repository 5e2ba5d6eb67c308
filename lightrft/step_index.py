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

    owner: the rank that holds a row; place: where in that rank's batch. rewards: float64, NaN = invalid sample; errors:
    why. trained: tokens that are trained on; moves: whether a row has an advantage that is not 0. Before advantages are
    made, trained counts the sampled tokens and every row moves.
    """

    rank: int
    ranks: int
    group: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    prompt_lengths: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
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
        return rows[np.argsort(self.place[rows], kind="stable")]

    def places(self, rows: Iterable[int]) -> list[int]:
        """Where this rank's batch holds those of the rows that are its own."""
        return [int(self.place[row]) for row in rows if self.owner[row] == self.rank]

    def passes(self, size: int) -> int:
        """Forward passes of at most `size` rows that each rank makes over all its rows, so that all make as many."""
        return -(-int(np.bincount(self.owner, minlength=self.ranks).max()) // size)

    def group_tokens(self, rows: Sequence[int]) -> dict[int, float]:
        """The trained tokens of each group among the rows."""
        grouped = rows_by_group(self.group[list(rows)]).items()
        return {name: float(self.trained[[rows[place] for place in places]].sum()) for name, places in grouped}

    def with_rewards(self, rewards: np.ndarray) -> StepIndex:
        return replace(self, rewards=rewards)

    def after_advantages(self, trained: Sequence[int], moves: Sequence[bool], ranks: Ranks) -> StepIndex:
        """With what each rank has found of its own rows, in the order of its batch. The step's second exchange."""
        everyone = ranks.gather(list(zip(trained, moves, strict=True)))
        order = np.concatenate([self.rows_of(rank) for rank in range(self.ranks)])
        all_trained, all_moves = self.trained.copy(), self.moves.copy()
        all_trained[order] = [tokens for tokens, _ in everyone]
        all_moves[order] = [moves for _, moves in everyone]
        return replace(self, trained=all_trained, moves=all_moves)


def index_step(rollouts: Sequence[Rollout], ranks: Ranks) -> StepIndex:
    """The step's first exchange: each rank tells of the rollouts that it holds, which may be none."""
    return index_of(ranks.gather(facts_of(rollouts, ranks.rank)), ranks.rank, ranks.size)


def facts_of(rollouts: Sequence[Rollout], rank: int) -> list[tuple]:
    """What a rank tells of its rows: first what orders them, (group, sample, owner, place)."""
    return [(r.group, r.sample, rank, place, *_facts(r)) for place, r in enumerate(rollouts)]


def _facts(r: Rollout) -> tuple[int, int, bool, float, str | None, int]:
    length = len(r.prompt_ids) + len(r.response_ids)
    error = "it was not scored" if r.reward is None else r.reward.error
    return len(r.prompt_ids), length, r.finish_reason == "length", r.valid_reward, error, sum(r.response_mask)


def index_of(facts: Sequence[tuple], rank: int, ranks: int) -> StepIndex:
    """facts: of all ranks, in any order."""
    ordered = sorted(facts, key=lambda row: row[:4])
    group, _, owner, place, prompts, lengths, truncated, rewards, errors, trained = zip(*ordered, strict=True)
    return StepIndex(
        rank=rank,
        ranks=ranks,
        group=np.array(group),
        owner=np.array(owner),
        place=np.array(place),
        prompt_lengths=np.array(prompts),
        lengths=np.array(lengths),
        truncated=np.array(truncated),
        rewards=np.array(rewards, dtype=np.float64),
        errors=errors,
        trained=np.array(trained),
        moves=np.ones(len(group), dtype=bool),
    )
