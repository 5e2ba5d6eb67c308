"""What fails on one rank fails on all of them, at the same place: nobody waits for a rank that has gone."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lightrft.errors import Refused, RunFailed, error_text, is_out_of_memory, out_of_memory_text
from lightrft.ranks.base import Ranks

T = TypeVar("T")


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Every rank leaves the block alike: with the refusal or failure of the first rank that has one, or with none.
    Also a rank that has another one: by its kind all decide what to do next.

    For work that each rank does by itself: a rank that fails inside must leave no other one in a collective there.
    An error that is a bug keeps its traceback, printed where it happened.
    """
    if ranks.size == 1:
        yield
        return
    failure: Refused | RunFailed | None = None
    try:
        yield
    except (Refused, RunFailed) as error:
        failure = error
    except Exception as error:
        failure = RunFailed(f"rank {ranks.rank}: {_in_one_line(error)}")
    told = ranks.agree(None if failure is None else type(failure)(str(failure)))
    if told is not None:
        raise told from failure


def on_all(ranks: Ranks, do: Callable[[], T]) -> list[T]:
    """What `do` returns on each rank; all of them fail as `together` does."""
    with together(ranks):
        mine = do()
    return ranks.gather([mine])


def on_first(ranks: Ranks, do: Callable[[], T]) -> T:
    """What `do` returns on rank 0, which alone calls it."""
    return on_all(ranks, do if ranks.rank == 0 else lambda: None)[0]  # pyright: ignore[reportReturnType]


def _in_one_line(error: Exception) -> str:
    if is_out_of_memory(error):
        return out_of_memory_text(error)
    traceback.print_exception(error, file=sys.stderr)
    return error_text(error)
