from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lightrft.update.partition import MicroBatchSize, draw_parts, micro_batches


def rows_of(*arguments, **named):
    return [(part.epoch, part.rows) for part in draw_parts(*arguments, **named)]


@pytest.mark.parametrize("n, size", [(16, 4), (16, 16), (10, 4), (3, 8)])
def test_every_epoch_covers_each_row_once_and_only_the_last_part_is_short(n, size):
    parts = rows_of(n, size, 3, seed=1, turn=2)
    for epoch in range(3):
        mine = [rows for number, rows in parts if number == epoch]
        assert sorted(row for rows in mine for row in rows) == list(range(n))
        assert [len(rows) for rows in mine[:-1]] == [size] * (len(mine) - 1) and 0 < len(mine[-1]) <= size
    assert [epoch for epoch, _ in parts] == sorted(epoch for epoch, _ in parts)


def test_the_split_depends_on_seed_step_and_epoch_only():
    first = rows_of(32, 8, 2, seed=1, turn=5)
    assert first == rows_of(32, 8, 2, seed=1, turn=5)
    assert [rows for epoch, rows in first if epoch == 0] == [rows for _, rows in rows_of(32, 8, 1, seed=1, turn=5)]
    others = [rows_of(32, 8, 1, seed=2, turn=5), rows_of(32, 8, 1, seed=1, turn=6)]
    assert all([rows for _, rows in other] != [rows for _, rows in first[:4]] for other in others)
    assert [rows for _, rows in first[:4]] != [rows for _, rows in first[4:]]


def test_one_part_holds_all_rows_in_order():
    assert rows_of(5, 5, 1, seed=0, turn=0) == [(0, (0, 1, 2, 3, 4))]


def index_of(lengths, groups=None, prompts=None):
    """What micro-batches are cut by."""
    some = [0] * len(lengths)
    return SimpleNamespace(
        lengths=np.array(lengths), group=np.array(groups or some), prompt_lengths=np.array(prompts or some)
    )


def test_micro_batches_keep_rows_of_like_length_together():
    assert micro_batches(index_of([5, 99, 9, 5, 7]), [0, 2, 3, 4], MicroBatchSize(2)) == [[2, 4], [0, 3]]
    assert micro_batches(index_of([1, 1, 1]), [0, 1, 2], MicroBatchSize(2)) == [[0, 1], [2]]


def test_micro_batches_keep_the_rows_of_a_group_together():
    index = index_of([9, 2, 3, 8, 7, 3], [1, 2, 1, 2, 1, 2])
    assert micro_batches(index, range(6), MicroBatchSize(3, shares=True)) == [[0, 4, 2], [3, 5, 1]]


@pytest.mark.parametrize("size", [MicroBatchSize(1), MicroBatchSize(3), MicroBatchSize(50), MicroBatchSize(1, 4)])
@pytest.mark.parametrize("shares", (True, False))
def test_micro_batches_cover_every_row_once(size, shares):
    rows, index = [3, 1, 4, 9, 2, 6], index_of([row % 4 for row in range(10)], [row % 3 for row in range(10)])
    found = micro_batches(index, rows, replace(size, shares=shares))
    assert sorted(row for piece in found for row in piece) == sorted(rows)
    assert all(1 <= len(piece) <= (size.rows if size.tokens is None else 6) for piece in found)


def test_a_budget_counts_the_tokens_that_the_model_is_run_on():
    """Prompts of 4 tokens, responses of 5, 3, 2 and 1 to the first, of 3 to the second. Padded: 9 and 7 tokens take 18.
    Packed: 9 + 7 + 7. Shared: 4 + 5 + 3 + 2 + 1, then 4 + 3."""
    index = index_of([9, 7, 7, 6, 5], [0, 0, 1, 0, 0], [4] * 5)
    cuts = {
        (18, False, False): [[0, 1], [2, 3], [4]],
        (17, False, False): [[0], [1, 2], [3, 4]],
        (23, False, True): [[0, 1, 2], [3, 4]],
        (22, False, True): [[0, 1], [2, 3, 4]],
        (15, True, True): [[0, 1, 3, 4], [2]],
        (14, True, True): [[0, 1, 3], [4, 2]],
        (1, True, True): [[0], [1], [3], [4], [2]],
    }
    for (tokens, shares, packs), wanted in cuts.items():
        assert micro_batches(index, range(5), MicroBatchSize(1, tokens, shares, packs)) == wanted, (
            tokens,
            shares,
            packs,
        )
