"""What fails on one rank fails on all: ranks as threads that meet at a barrier. (tests/contract has processes.)"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from lightrft.errors import Damaged, Refused, RunFailed
from lightrft.ranks.base import ONE_RANK
from lightrft.ranks.together import on_all, on_first


class Rank:
    def __init__(self, rank, board, barrier):
        self.rank, self.size, self.board, self.barrier = rank, len(board), board, barrier

    def gather(self, items):
        self.board[self.rank] = items
        self.barrier.wait(10)
        found = [item for items in self.board for item in items]
        self.barrier.wait(10)
        return found

    def agree(self, asked):
        return next((answer for answer in self.gather([asked]) if answer is not None), None)


def on_ranks(*each, what=on_all):
    """What each rank is given: a result, or an error to raise. What each gets: results, or the error."""

    def one(rank, given):
        def do():
            if isinstance(given, Exception):
                raise given
            return given

        try:
            return what(Rank(rank, board, barrier), do)
        except Exception as error:
            return error

    board, barrier = [[] for _ in each], Barrier(len(each))
    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(one, range(len(each)), each))


def shown(results):
    return [f"{type(result).__name__}: {result}" if isinstance(result, Exception) else result for result in results]


def test_all_have_the_results_of_all():
    assert on_ranks("a", "b") == [["a", "b"]] * 2
    assert on_ranks("a", ValueError("is not asked"), what=on_first) == ["a", "a"]


@pytest.mark.parametrize("kind", (Refused, RunFailed, Damaged))
def test_all_raise_the_error_of_the_first_rank_that_has_one(kind):
    assert shown(on_ranks("a", kind("b fails"), Refused("c too"))) == [f"{kind.__name__}: b fails"] * 3


def test_an_error_of_ours_is_told_by_rank_and_keeps_its_traceback_where_it_happened(capsys):
    assert shown(on_ranks(KeyError("b"), "b")) == ["RunFailed: rank 0: KeyError: 'b'"] * 2
    assert "raise given" in capsys.readouterr().err
    with pytest.raises(KeyError):
        on_all(ONE_RANK, lambda: {}["b"])
