from __future__ import annotations

import threading

import pytest

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.reading import Reader
from lightrft.types import Prompt, Request


def prompt(name: str, folder: str = "train", where: str = "data.jsonl:1") -> Prompt:
    return Prompt(name, (), images=(f"{name}.png",), folder=folder, where=where)


def read(prompt: Prompt) -> Request:
    if prompt.id == "bad":
        raise BadRow(f"{prompt.where}: broken")
    return Request((len(prompt.folder),), ())


@pytest.mark.parametrize("threads", [0, 2])
def test_two_data_sets_may_name_their_images_alike(threads):
    """The held-out question is the training one, of another image: their ids are equal."""
    reader = Reader(read, threads)
    mine, other = prompt("same"), prompt("same", "held_out", "other.jsonl:1")
    reader.begin([mine])
    assert reader.fault_of(mine) is None
    assert reader.request(other).prompt_ids == (8,) and reader.request(mine).prompt_ids == (5,)
    assert not reader.held


def test_what_nobody_will_ask_for_is_forgotten():
    reader = Reader(read, 1)
    prompts = [prompt(name) for name in "abcd"]
    assert reader.begin(prompts) == 4 and reader.begin(prompts) == 0
    reader.keep(prompts[1:3])
    assert {name for *_, name in reader.held} == {"b", "c"}
    reader.close()


def test_a_fault_is_told_each_time_and_not_held():
    reader = Reader(read, 1)
    bad = prompt("bad")
    reader.begin([bad])
    assert reader.fault_of(bad) == "data.jsonl:1: broken" == reader.fault_of(bad)
    assert not reader.held
    with pytest.raises(BadRow):
        reader.request(bad)


def test_a_reader_that_is_closed_reads_no_more():
    """A run that was asked to stop does not read the rest of its queue."""
    gate, seen = threading.Event(), []

    def slow(prompt: Prompt) -> Request:
        seen.append(prompt.id)
        gate.wait(10)
        return read(prompt)

    reader = Reader(slow, 1)
    reader.begin([prompt(name) for name in "abcdef"])
    reader.close()
    gate.set()
    assert reader.pool is not None
    reader.pool.shutdown(wait=True)
    assert len(seen) <= 1
