from __future__ import annotations

import pytest

from lightrft.update.partition import draw_parts, micro_batches


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


def test_micro_batches_keep_rows_of_like_length_together():
    assert micro_batches([0, 2, 3, 4], [0] * 5, [5, 99, 9, 5, 7], 2) == [[2, 4], [0, 3]]
    assert micro_batches([0, 1, 2], [0] * 3, [1, 1, 1], 2) == [[0, 1], [2]]


def test_micro_batches_keep_the_rows_of_a_group_together():
    lengths, groups = [9, 2, 3, 8, 7, 3], [1, 2, 1, 2, 1, 2]
    assert micro_batches(range(6), groups, lengths, 3) == [[0, 4, 2], [3, 5, 1]]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_micro_batches_cover_every_row_once(size):
    rows = [3, 1, 4, 9, 2, 6]
    found = micro_batches(rows, [row % 3 for row in range(10)], [row % 4 for row in range(10)], size)
    assert sorted(row for piece in found for row in piece) == sorted(rows)
    assert all(1 <= len(piece) <= size for piece in found)
