"""The samples of a rollout step that are shown: the first of all ranks, with the numbers of each of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.types import Rollout

if TYPE_CHECKING:
    from lightrft.batch import Batch
    from lightrft.ranks.base import Ranks

PER_TOKEN = ("advantages", "old_logprobs", "ref_logprobs", "values", "returns")  # of the batch, where they are filled


@dataclass(frozen=True)
class Sample:
    """per_token: numbers of each token of the response, by their names in the batch."""

    rollout: Rollout
    per_token: Mapping[str, Sequence[float]]


def first_samples(rollouts: Sequence[Rollout], batch: Batch, count: int, ranks: Ranks) -> list[Sample]:
    """Of the first `count` rows of the index, whichever rank holds them; row i of `batch` is rollout i."""
    if not count:
        return []
    own = [(int(row), int(batch.index.batch_row[row])) for row in batch.index.own if row < count]
    told = ranks.gather([(row, _sample(rollouts[place], batch, place)) for row, place in own])
    return [sample for _, sample in sorted(told, key=lambda entry: entry[0])]


def _sample(rollout: Rollout, batch: Batch, row: int) -> Sample:
    response = slice(len(rollout.prompt_ids), len(rollout.prompt_ids) + rollout.length)
    names = [name for name in PER_TOKEN if batch.has(name)]
    return Sample(rollout, {name: getattr(batch, name)[row, response].tolist() for name in names})
