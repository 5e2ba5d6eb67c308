"""Which rank trains on which rows: rollouts are dealt out so that tokens are balanced, whole groups where possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lightrft.groups import rows_by_group
from lightrft.ranks.base import Ranks, World
from lightrft.step_index import Fact, StepIndex, facts_of, index_of
from lightrft.types import Rollout

Split = Callable[[int, int], Sequence[Sequence[int]]]  # rows of the rollout step, turn -> the rows of each part


class Dealer:
    """Rollouts lie where they were sampled; they are trained on where the dealer sends them.

    Correctness does not depend on it: every statistic is over all rows. split: the optimizer steps of a turn, of which
    each should have as many tokens on every rank.
    """

    def __init__(self, world: World, everyone: Ranks, split: Split) -> None:
        self.world, self.everyone, self.split = world, everyone, split

    def deal(self, rollouts: Sequence[Rollout], turn: int) -> tuple[list[Rollout], StepIndex]:
        """This rank's rows, maybe none, and the index of all of them; processes that share sequences get the same."""
        facts = sorted(self.everyone.gather(facts_of(rollouts, self.everyone.rank)), key=lambda fact: fact.place)
        owners = deal_out(facts, self.split(len(facts), turn), self.world.dp_size)
        dealt = _placed(facts, owners)
        return self._exchanged(rollouts, facts, owners), index_of(dealt, self.world.dp_rank, self.world.dp_size)

    def _exchanged(self, rollouts: Sequence[Rollout], facts: Sequence[Fact], owners: Sequence[int]) -> list[Rollout]:
        if self.everyone.size == 1:
            return [rollouts[fact.batch_row] for fact in facts]
        sharing, rank = range(self.world.sp_size), self.everyone.rank
        own = [(fact, owner) for fact, owner in zip(facts, owners, strict=True) if fact.owner == rank]
        letters = [rollouts[fact.batch_row] for fact, _ in own for _ in sharing]
        came = self.everyone.exchange(letters, [owner * len(sharing) + place for _, owner in own for place in sharing])
        return sorted(came, key=lambda rollout: (rollout.group, rollout.sample))


def _placed(facts: Sequence[Fact], owners: Sequence[int]) -> list[Fact]:
    """With the rank that a row was dealt to, and its row there."""
    rows = [0] * (max(owners) + 1)
    placed = []
    for fact, owner in zip(facts, owners, strict=True):
        placed.append(replace(fact, owner=owner, batch_row=rows[owner]))
        rows[owner] += 1
    return placed


def deal_out(facts: Sequence[Fact], parts: Sequence[Sequence[int]], n_ranks: int) -> list[int]:
    """The rank of each row. Whole groups where there are as many as ranks, else single rows.

    The longest unit goes first, each to the rank where it meets the fewest tokens of its own parts; of equals to the
    one with the fewest tokens in all, then the first.
    """
    units = list(rows_by_group(fact.group for fact in facts).values())
    if len(units) < n_ranks:
        units = [[row] for row in range(len(facts))]
    tokens = np.zeros((len(facts), len(parts)))
    for number, rows in enumerate(parts):
        tokens[list(rows), number] = [facts[row].length for row in rows]
    loads, owners = np.zeros((n_ranks, len(parts))), [0] * len(facts)
    for unit in sorted(units, key=lambda rows: (-tokens[rows].sum(), rows[0])):
        added = tokens[unit].sum(0)
        meets = zip((loads @ added).tolist(), loads.sum(1).tolist(), strict=True)
        rank = min(enumerate(meets), key=lambda entry: (entry[1], entry[0]))[0]
        loads[rank] += added
        for row in unit:
            owners[row] = rank
    return owners
