"""The denominators of one optimizer step, from the index of the rollout step: equal on all ranks."""

from __future__ import annotations

from collections.abc import Sequence

from lightrft.algorithms.functional import Counts
from lightrft.step_index import StepIndex


def step_counts(index: StepIndex, rows: Sequence[int], max_new_tokens: int) -> Counts:
    """Over the rows that an optimizer step learns from, on whichever ranks they are."""
    trained = index.trained[list(rows)]
    return Counts(
        tokens=float(trained.sum()),
        sequences=float((trained > 0).sum()),
        rows=float(len(rows)),
        groups=float(sum(tokens > 0 for tokens in index.group_tokens(rows).values())),
        max_new_tokens=max_new_tokens,
    )


def own_group_tokens(index: StepIndex, rows: Sequence[int]) -> list[float]:
    """For each row of this rank's batch, the trained tokens of its whole group among `rows`."""
    tokens = index.group_tokens(rows)
    return [tokens.get(group, 0.0) for group in index.group[index.own].tolist()]
