"""A checkpoint is whole on all ranks, or on none, and all say the same of it: on three real processes, over gloo."""

from __future__ import annotations

import json

import pytest
from launch import launch

LAST = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def seen(folder):
    """case -> what each rank saw, in one launch."""
    launch("checkpoints.py", LAST + 1, folder, folder / "out.json", seconds=100)
    everyone = json.loads((folder / "out.json").read_text())
    return {case: [found[case] for found in everyone] for case in everyone[0]}


def same(of_ranks):
    """What all ranks saw alike."""
    assert of_ranks == of_ranks[:1] * (LAST + 1)
    return of_ranks[0]


def test_each_rank_writes_its_own_and_goes_on_from_it(seen):
    files, there, restored, *holds = same(seen["whole"])
    ranks = range(LAST + 1)
    assert files == [f"policy/rank_0000{rank}.safetensors" for rank in ranks] + [f"random_{r}.json" for r in ranks]
    assert there == ["latest", "step_000001"] and restored == [1, 1, []] and all(holds)


def test_a_disk_that_refuses_one_rank_refuses_all_and_leaves_what_was_there(seen, folder):
    *failed, after = same(seen["a_disk_that_refuses"])
    at = folder / "a_disk_that_refuses"
    for (said, there), rank in zip(failed, (LAST, LAST, 0), strict=True):
        assert said == (
            f"SaveFailed: --ckpt_path {at}: the checkpoint of step 2 could not be written by rank {rank} No space left "
            f"on device; {at}/step_000001 stands; make room and use --load_checkpoint"
        )
        assert there == ["latest", "step_000001"]
    assert after == ["latest", "step_000001", "step_000002"]


def test_what_fails_on_one_rank_ends_all_and_says_where(seen):
    assert same(seen["a_bug"]) == ["RunFailed: rank 1: ZeroDivisionError: a bug", []]
    said, there = same(seen["too_little_memory"])
    assert said.startswith("RunFailed: rank 1: out of memory: none left") and there == ["latest", "step_000001"]
    said, there = same(seen["a_folder_that_is_not_shared"])
    assert "it is not there on " in said and "choose one on a file system that all of them share" in said and not there


def test_a_rank_that_cannot_read_leaves_nobody_waiting_for_its_part(seen, folder):
    said, there, restored = same(seen["a_disk_that_does_not_give"])
    where = folder / "a_disk_that_does_not_give/step_000001"
    assert said.startswith(f"Refused: --load_checkpoint: {where} cannot be read: Input/output error; mend that")
    assert there == ["latest", "step_000001"] and restored == [1, 1, []]


def test_what_one_machine_does_not_see_is_not_damaged(seen):
    """The next save would remove a checkpoint that is whole."""
    *refused, restored = same(seen["machines_that_share_no_disk"])
    first, file = "rank 0", f"rank {LAST}"
    for (said, there), (name, seen_first, seen_last) in zip(
        refused,
        (
            ("random_0.json", "there with ", "not there"),
            ("random_0.json", "there with ", "there with 4 bytes"),
            ("more", "not there", "there with 0 bytes"),
        ),
        strict=True,
    ):
        assert said.startswith(f"Refused: --load_checkpoint: ckpt/step_000001/{name} is {seen_first}")
        assert f"for {first} on " in said and f", and {seen_last} for {file} on " in said
        assert "is --ckpt_path on a file system that all machines share?" in said and there == ["step_000001"]
    assert restored == [1, 1, []]


def test_a_rank_that_cannot_save_leaves_nobody_waiting_in_an_export(seen):
    copied, written, exported, broken = same(seen["exports"])
    for (said, _), rank in ((copied, LAST), (written, 0)):
        assert f"the checkpoint of step 1 could not be written by rank {rank} No space left on device" in said
    assert "the trained policy could not be written by rank 0 No space left on device" in exported[0]
    assert broken[0] == "RunFailed: rank 0: ZeroDivisionError: division by zero"
    assert copied[1] == written[1] == []


def test_damage_that_one_rank_finds_sends_all_to_the_one_before_with_nothing_loaded(seen):
    flipped, loaded, untaken, there = same(seen["damage"])
    assert flipped == [1, 1, [f"step_000002 (policy/rank_0000{LAST}.safetensors is not as it was written)"]]
    assert loaded == ["step_000001"]
    assert untaken == [1, 1, ["step_000002 (ValueError: no stream)"]]
    assert there == ["latest", "step_000001", "step_000002"]


def test_a_slow_rank_holds_nobody_up_and_nothing_is_promised_before_it_is_done(seen):
    """What is written behind the next step is as it was at the boundary."""
    early, later, at_the_end, first, restored = same(seen["behind"])
    assert early == [None, [".step_000001.tmp"]]
    assert later == [1, [".step_000002.tmp", "latest", "step_000001"]]
    assert at_the_end == ["latest", "step_000001", "step_000002"]
    assert first == [1.0] * 2 * (LAST + 1) and restored == [2, 2, []]


def test_left_overs_of_another_number_of_ranks_go(seen):
    there, files = same(seen["left_overs"])
    assert there == ["latest", "step_000003"] and files == [f"rank_0000{rank}.safetensors" for rank in range(LAST + 1)]
