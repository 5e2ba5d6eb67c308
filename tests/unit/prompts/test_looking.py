"""A few prompts are looked at, from all over the data, and no longer than is allowed."""

from __future__ import annotations

import pytest

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRow, BadRows
from lightrft.prompts.looking import MOST_PROMPTS, MOST_S, look_at_some
from lightrft.types import Prompt, Request


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p{n}", (), images=("a.png",), where=f"a:{n}") for n in range(count)]


class Reading:
    """Takes `seconds` for each prompt; those in `bad` cannot be used."""

    def __init__(self, seconds: float = 0.0, bad: tuple[str, ...] = ()) -> None:
        self.seconds, self.bad, self.now, self.read = seconds, bad, 0.0, []

    def __call__(self, prompt: Prompt) -> Request:
        self.now += self.seconds
        self.read.append(prompt.where)
        if prompt.where in self.bad:
            raise BadRow(f"{prompt.where}: image 1 of 1 is broken")
        return Request(tuple(range(10 + len(self.read))), ())

    def look(self, rows: list[Prompt], bad: BadRows) -> tuple[list[Prompt], list[str]]:
        return look_at_some(rows, self, bad, clock=lambda: self.now)


def test_sixteen_of_a_hundred_from_the_first_to_the_last():
    reading, rows = Reading(), prompts(100)
    kept, lines = reading.look(rows, BadRows())
    assert kept == rows and len(reading.read) == MOST_PROMPTS == 16
    assert reading.read[:2] == ["a:0", "a:7"] and reading.read[-1] == "a:99"  # 99 / 15 = 6.6 apart
    assert lines == [
        "images of --prompt_data: 16 of 100 prompts were looked at, 11 to 26 tokens each; the others are read when "
        "their turn comes"
    ]


def test_ten_seconds_end_it():
    reading = Reading(seconds=4.0)
    _, lines = reading.look(prompts(100), BadRows())
    assert reading.now == 12.0 > MOST_S and "3 of 100 prompts were looked at" in lines[0]  # at 4, 8 and 12 seconds
    slow = Reading(seconds=60.0)
    assert "1 of 2 prompts were looked at, 11 to 11 tokens each;" in slow.look(prompts(2), BadRows())[1][0]


def test_texts_are_not_looked_at():
    assert Reading().look([Prompt("t", ())], BadRows()) == ([Prompt("t", ())], [])


def test_bad_ones_are_counted_with_their_places():
    with pytest.raises(Refused) as refused:
        Reading(bad=("a:1", "a:3")).look(prompts(5), BadRows())
    assert str(refused.value).startswith("--prompt_data a:1: image 1 of 1 is broken (and 1 more bad rows); ")
    bad = BadRows(skip=True)
    kept, lines = Reading(bad=("a:1", "a:3")).look(prompts(5), bad)
    assert [prompt.where for prompt in kept] == ["a:0", "a:2", "a:4"] and len(bad.faults) == 2
    assert lines == ["images of --prompt_data: 5 of 5 prompts were looked at, 11 to 15 tokens each"]
