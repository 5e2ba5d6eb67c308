from __future__ import annotations

import pickle
from array import array
from dataclasses import replace

import pytest
import torch

from lightrft.batch import collate
from lightrft.types import SamplingMask

CPU = torch.device("cpu")


def mask(*sets):
    return SamplingMask(array("i", map(len, sets)), array("i", [token for each in sets for token in each]))


@pytest.fixture
def batch(make_rollout):
    rows = [
        ((1, 5), (6, 7, 8), mask((6, 9), (), (8,))),
        ((1,), (), mask()),
        ((1, 5, 4), (3, 2), mask((1, 2, 3), (2, 4))),
    ]
    rollouts = [replace(make_rollout(*ids, total=1.0), sampling_mask=each) for *ids, each in rows]
    return collate(rollouts, 1.0, CPU)


def sets(batch, places):
    found = batch.sampling_masks.at(torch.tensor(places, dtype=torch.long))
    return [each.tolist() for each in found.ids.split(found.sizes.tolist())]


def test_the_sets_of_tokens_by_their_places(batch):
    assert batch.sampling_masks.sizes.tolist() == [[0, 0, 2, 0, 1], [0] * 5, [0, 0, 0, 3, 2]]
    assert sets(batch, [2, 3, 4, 13, 14]) == [[6, 9], [], [8], [1, 2, 3], [2, 4]]
    assert sets(batch, [14, 4]) == [[2, 4], [8]] and sets(batch, [3]) == [[]] and sets(batch, []) == []


def test_rows_are_selected_and_moved_with_their_sets(batch):
    chosen = batch.select([2, 0, 1])
    assert chosen.sampling_masks.sizes.tolist() == [[0, 0, 0, 3, 2], [0, 0, 2, 0, 1], [0] * 5]
    assert sets(chosen, [3, 4, 7, 8, 9]) == [[1, 2, 3], [2, 4], [6, 9], [], [8]]
    assert sets(batch.select([0]), [2, 4]) == [[6, 9], [8]]
    dummy = batch.dummy_row()
    assert dummy.sampling_masks.sizes.tolist() == [[0]] and sets(dummy, [0]) == [[]]
    moved = batch.to(torch.device("meta")).sampling_masks
    assert {each.device.type for each in (moved.sizes, *moved.ids)} == {"meta"}


def test_without_masks_there_are_none(make_rollout):
    rollout = make_rollout((1, 5), (6,), total=1.0)
    assert not collate([rollout], 1.0, CPU).has("sampling_masks")
    assert not collate([], 1.0, CPU).has("sampling_masks")


@pytest.mark.parametrize("wrong", [mask((6, 9), (8,)), mask((6, 9), (7,), (9, 10)), mask((7,), (7,), (8,))])
def test_a_token_that_is_not_in_its_set_is_our_own_mistake(make_rollout, wrong):
    rollout = replace(make_rollout((1, 5), (6, 7, 8), total=1.0), sampling_mask=wrong)
    with pytest.raises(AssertionError, match="was drawn from a set that it is not in"):
        collate([rollout], 1.0, CPU)


def test_a_mask_travels_as_bytes():
    """Four bytes a number, whatever its size."""
    many = SamplingMask(array("i", [10000] * 10), array("i", range(100000)))
    assert len(pickle.dumps(many)) < 4 * 100010 + 200 and pickle.loads(pickle.dumps(many)) == many
