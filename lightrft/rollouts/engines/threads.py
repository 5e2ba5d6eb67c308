"""Which work of a decoding step is shared between a CPU's threads: matrix products, and nothing smaller.

A step is hundreds of small operations, each of which torch would share between its threads. Where these sleep in
between (OMP_WAIT_POLICY=passive, which the trainer sets), to wake them takes longer than the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

MOST = 256  # rows; of more, sharing what is small gains as well
_all: list[int] = []  # how many there are, while one of them computes
_may: list[bool] = []


@contextmanager
def products_alone(may_be: bool) -> Iterator[None]:
    """may_be: whether within it all large products are `with all_threads()`; else `one_thread` does nothing."""
    _may.append(may_be)
    try:
        yield
    finally:
        _may.pop()


@contextmanager
def one_thread(rows: int) -> Iterator[None]:
    """Within it one thread computes, but for what is `with all_threads()`; where threads spin or rows are many, all."""
    threads, may = torch.get_num_threads(), bool(_may) and _may[-1]
    if not may or threads == 1 or rows > MOST or os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        yield
        return
    _all.append(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_all.pop())


def all_threads() -> AbstractContextManager[None]:
    return _awake() if _all else nullcontext()  # every product asks: where there is nothing to do, nothing is done


@contextmanager
def _awake() -> Iterator[None]:
    torch.set_num_threads(_all[-1])
    try:
        yield
    finally:
        torch.set_num_threads(1)
