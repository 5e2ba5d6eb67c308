"""Which rank gets which rows: by hand, without processes."""

from __future__ import annotations

from lightrft.rollouts.dealer import deal_out
from lightrft.step_index import Fact
from lightrft.types import Outcome


def facts(*lengths: tuple[int, ...]) -> list[Fact]:
    """A group for each tuple, with rows of so many tokens."""
    return [
        Fact(group, sample, 0, 0, 1, length - 1, Outcome(None, length - 1, "stop"))
        for group, of_group in enumerate(lengths)
        for sample, length in enumerate(of_group)
    ]


def test_whole_groups_the_longest_first_to_the_rank_with_the_fewest_tokens():
    rows = facts((5, 5), (2, 3), (4, 4), (1, 2))  # 10, 5, 8, 3 tokens
    assert deal_out(rows, [range(8)], 2) == [0, 0, 1, 1, 1, 1, 0, 0]
    assert deal_out(rows, [range(8)], 3) == [0, 0, 2, 2, 1, 1, 2, 2]
    assert deal_out(rows, [range(8)], 1) == [0] * 8


def test_single_rows_where_there_are_fewer_groups_than_ranks():
    assert deal_out(facts((5, 3, 4, 2)), [range(4)], 2) == [0, 1, 1, 0]
    assert deal_out(facts((5,)), [range(1)], 3) == [0], "the others have none"


def test_every_optimizer_step_is_balanced_and_not_only_their_sum():
    """Of four rows of one length two are in each step: by tokens alone any two would do for a rank."""
    rows = facts((4,), (4,), (4,), (4,))
    assert deal_out(rows, [(0, 1), (2, 3)], 2) == [0, 1, 0, 1]
    assert deal_out(rows, [(0, 2), (1, 3)], 2) == [0, 1, 1, 0]
