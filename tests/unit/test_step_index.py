"""What every rank knows of every row, by hand: without processes, one rank's view after another's."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightrft.groups import rows_by_group, varied_groups
from lightrft.step_index import facts_of, index_of
from lightrft.update.counts import own_group_tokens, step_counts
from lightrft.update.partition import MicroBatchSize, cut, passes, rows_that_move

# (rank, group, sample, prompt, response, reward): two prompts whose samples lie on two ranks; the third rank has none.
HELD = [
    (0, 4, 1, 2, 3, 1.0),
    (0, 7, 0, 4, 2, 0.0),
    (1, 4, 0, 2, 5, 0.5),
    (1, 7, 2, 4, 1, math.nan),
    (1, 7, 1, 4, 6, 1.0),
]
ALL = range(5)


@pytest.fixture
def views(make_rollout):
    """The index as each of the three ranks sees it."""
    held = [[], [], []]
    for rank, group, sample, prompt, response, reward in HELD:
        told = {"error": "x: bad"} if math.isnan(reward) else {"total": reward}
        made = make_rollout([1] * prompt, [5] * response, position=group, **told)
        held[rank].append(replace(made, sample=sample))
    facts = [fact for rank, rollouts in enumerate(held) for fact in facts_of(rollouts, rank)]
    return [index_of(facts, rank, 3) for rank in range(3)]


def test_rows_stand_in_the_order_of_groups_and_samples_on_every_rank(views):
    for index in views:
        assert index.group.tolist() == [4, 4, 7, 7, 7] and index.owner.tolist() == [1, 0, 0, 1, 1]
        assert index.batch_row.tolist() == [0, 0, 1, 2, 1] and len(index) == 5
        assert index.prompt_lengths.tolist() == [2, 2, 4, 4, 4] and index.lengths.tolist() == [7, 5, 6, 10, 5]
        assert index.trained.tolist() == [5, 3, 2, 6, 1]
        assert index.rewards.tolist()[:4] == [0.5, 1.0, 0.0, 1.0] and math.isnan(index.rewards[4])
        assert index.errors == [None, None, None, None, "x: bad"] and index.moves.all()


def test_each_rank_finds_its_own_rows_in_its_batch(views):
    assert [index.own.tolist() for index in views] == [[1, 2], [0, 4, 3], []]
    assert [index.batch_rows([0, 2, 3, 4]) for index in views] == [[1], [0, 2, 1], []]


@pytest.mark.parametrize("size, count", [(1, 3), (2, 2), (3, 1), (4, 1)])
def test_all_ranks_score_in_as_many_passes(views, size, count):
    """The second has three rows, the first two, the third none; each goes through its own in its batch's order."""
    found = [passes(index, MicroBatchSize(size)) for index in views]
    assert [len(each) for each in found] == [count] * 3
    assert [[row for part in each for row in part] for each in found] == [[1, 2], [0, 4, 3], []]


def test_the_denominators_of_a_part_are_those_of_all_ranks(views):
    for index in views:
        counts = step_counts(index, (0, 1, 4), 8)
        assert (counts.tokens, counts.sequences, counts.rows, counts.groups) == (9.0, 3.0, 3.0, 2.0)
        without = step_counts(replace(index, trained=index.trained * [1, 1, 0, 0, 0]), ALL, 8)
        assert (without.tokens, without.sequences, without.rows, without.groups) == (8.0, 2.0, 5.0, 1.0)
    assert [own_group_tokens(index, (0, 1, 4)) for index in views] == [[8.0, 1.0], [8.0, 1.0, 1.0], []]
    assert own_group_tokens(views[0], (0, 1)) == [8.0, 0.0], "a group that the part has no row of"


def test_all_ranks_have_as_many_micro_batches(views):
    """Of the lengths 7, 10, 5 on the second rank the longest comes first, unless groups stay together."""
    assert [cut(index, ALL, MicroBatchSize(2)) for index in views] == [[[2, 1], []], [[3, 0], [4]], [[], []]]
    assert [cut(index, ALL, MicroBatchSize(2, shares=True))[0] for index in views] == [[2, 1], [3, 4], []]
    assert [cut(index, (1,), MicroBatchSize(2)) for index in views] == [[[1]], [[]], [[]]]


def test_what_each_rank_finds_of_its_rows_reaches_all(views):
    """The second exchange; in the order of each rank's batch: rows 1, 2 and rows 0, 4, 3."""
    told = [(3, True), (2, False), (5, False), (0, True), (6, False)]
    everywhere = SimpleNamespace(gather=lambda items: told)
    for index in (view.after_advantages([], [], everywhere) for view in views):
        assert index.trained.tolist() == [5, 3, 2, 6, 0] and index.moves.tolist() == [False, True, False, False, True]
        assert rows_that_move(index, ALL) == [1, 4] and rows_that_move(index, (0, 2)) == [0]
        assert rows_that_move(replace(index, trained=index.trained * 0), (0, 2)) == []


def test_other_rewards_leave_the_rest_as_it_is(views):
    changed = views[0].with_rewards(views[0].rewards * 2)
    assert changed.rewards.tolist()[:4] == [1.0, 2.0, 0.0, 2.0] and changed.trained is views[0].trained


def test_groups_by_hand():
    assert rows_by_group([7, 4, 7, 9, 4]) == {7: [0, 2], 4: [1, 4], 9: [3]}
    assert varied_groups([7, 4, 7, 9, 4, 9], [1.0, 0.5, 1.0, math.nan, 0.25, 3.0]) == {4}
