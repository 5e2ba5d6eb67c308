"""Which rows belong to one prompt: asked here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def rows_by_group(group: Iterable[int]) -> dict[int, list[int]]:
    """The rows of each group; groups in the order of their first row."""
    rows: dict[int, list[int]] = {}
    for row, name in enumerate(group):
        rows.setdefault(int(name), []).append(row)
    return rows


def varied_groups(group: Iterable[int], rewards: Sequence[float]) -> set[int]:
    """Groups whose finite rewards are not all equal: there is something to learn from their samples' differences."""
    grouped = rows_by_group(group).items()
    return {name for name, rows in grouped if len({r for row in rows if math.isfinite(r := rewards[row])}) > 1}
