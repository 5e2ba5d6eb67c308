from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightrft.errors import RunFailed
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.reading import Reader
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.intake import Intake
from lightrft.types import Prompt, Request


def intake(bad: set[str], *, skips: bool = True, ranks: Any = ONE_RANK) -> Intake:
    def read(prompt: Prompt) -> Request:
        if prompt.id in bad:
            raise BadRow(f"{prompt.where}: broken")
        return Request((1,), ())

    encoder: Any = SimpleNamespace(reader=Reader(read, 0), vision=object())
    return Intake(encoder, ranks, skips=skips)


def stream(count: int = 8) -> PromptSampler:
    prompts = [Prompt(str(n), (), images=("x",), where=f"data.jsonl:{n}", position=n) for n in range(count)]
    return PromptSampler(prompts, seed=0)


@pytest.mark.parametrize("count", [1, 4, 8, 16])
def test_as_many_as_asked_for_come_where_any_can_be_used(count, capsys):
    """Also a batch that is large against the data: five of eight rows are bad."""
    bad = {"0", "1", "2", "3", "4"}
    found, prompts = intake(bad), stream()
    taken = [found.take(prompts, count) for _ in range(3)]
    assert all(len(part) == count and not {p.id for p in part} & bad for part in taken)
    places = [p.position for part in taken for p in part]
    assert places == sorted(set(places)), "in the order of the stream, none twice"
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(told) == len(set(told)), "once for each row"
    assert found.left_out >= 1


def test_where_none_can_be_used_the_run_ends():
    with pytest.raises(RunFailed, match=r"none of the last \d+ prompts can be used"):
        intake({str(n) for n in range(8)}).take(stream(), 3)


def test_nothing_is_read_where_bad_rows_end_the_run():
    assert len(intake({"0"}, skips=False).take(stream(), 8)) == 8


class Two:
    """The second of two ranks, of which the first found the prompt at `other` bad."""

    rank, size = 1, 2

    def __init__(self, other: list[int]) -> None:
        self.other = other

    def gather(self, items: list) -> list:
        found, self.other = self.other, []
        return [*found, *items]

    def agree(self, asked: Any) -> Any:
        return asked


def test_all_ranks_leave_out_the_same_and_hold_no_others_images():
    found, prompts = intake(set(), ranks=Two([2])), stream()
    taken = found.take(prompts, 4)
    assert [p.position for p in taken] == [0, 1, 3, 4]
    assert found.read_ahead(taken, prompts, 4) == 0  # without threads nothing is begun
    assert len(found.encoder.reader.held) <= len(found.share(taken))
