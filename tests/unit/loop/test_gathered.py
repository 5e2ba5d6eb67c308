"""The first rank writes what all gather; where it cannot, all gather on; where the gathering breaks, that ends it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lightrft.loop.gathered import write_gathered

A, B = "a", "b"


@dataclass
class Rank:
    rank: int = 0
    size: int = 2


class Params:
    """Three of them; what was taken is noted. `broken`: the second cannot be had."""

    def __init__(self, broken=False):
        self.taken, self.broken = [], broken

    def __iter__(self):
        for number in range(3):
            self.taken.append(number)
            if self.broken and number == 1:
                raise MemoryError("none left")
            yield number


def test_rank_0_writes_and_the_others_gather():
    written = {}
    for rank in (0, 1):
        first, second = Params(), Params()
        models = {A: iter(first), B: iter(second)}
        refused = write_gathered(models, lambda place, params: written.update({place: [*params]}), Rank(rank))
        assert refused is None and first.taken == second.taken == [0, 1, 2]
        assert written == ({A: [0, 1, 2], B: [0, 1, 2]})


@pytest.mark.parametrize("error", (OSError(28, "No space left on device"), ZeroDivisionError()))
def test_where_rank_0_cannot_write_all_is_gathered_and_the_reason_returned(error):
    places = []

    def write(place, params):
        places.append(place)
        next(iter(params))
        raise error

    first, second = Params(), Params()
    assert write_gathered({A: iter(first), B: iter(second)}, write, Rank()) is error
    assert places == [A] and first.taken == second.taken == [0, 1, 2]


@pytest.mark.parametrize("rank", (0, 1))
def test_where_the_gathering_breaks_off_that_is_raised_and_nothing_gathered_on(rank):
    """The others wait in the middle of it: nothing that follows would find them."""
    first, second = Params(broken=True), Params()
    with pytest.raises(MemoryError):
        write_gathered({A: iter(first), B: iter(second)}, lambda place, params: [*params], Rank(rank))
    assert first.taken == [0, 1] and not second.taken
