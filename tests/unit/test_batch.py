from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from lightrft.batch import FILLED_BY, Batch

ROWS = [((1, 5, 6), (0, 1, 1)), ((1, 5, 7, 8, 9), (0, 0, 1, 1, 1)), ((1, 4), (0, 1))]


@pytest.mark.parametrize("name, stage", FILLED_BY.items())
def test_a_field_that_no_stage_has_filled_raises_and_names_the_stage(batch_of, name, stage):
    batch = batch_of(ROWS).filled(**{name: None})
    with pytest.raises(ValueError) as caught:
        getattr(batch, name)
    assert str(caught.value) == f"Batch.{name} is empty: it is filled by {stage}"
    assert not batch.has(name)
    filled = batch.filled(**{name: torch.ones(3, 5)})
    assert filled.has(name) and getattr(filled, name).sum() == 15 and not batch.has(name)


def test_every_field_that_may_be_empty_names_its_stage():
    empty = {entry.name for entry in dataclasses.fields(Batch) if entry.default is None}
    assert empty == set(FILLED_BY)


def test_select_takes_rows_in_the_given_order_and_trims_to_the_longest(batch_of):
    batch = batch_of(ROWS, rewards=torch.tensor([1.0, 2.0, 3.0]), group=torch.tensor([7, 8, 9]), temperature=0.7)
    batch = batch.filled(advantages=torch.arange(15.0).reshape(3, 5), mm_inputs=({"a": 0}, {"a": 1}, {"a": 2}))
    found = batch.select([2, 0])
    assert found.input_ids.tolist() == [[1, 4, 0], [1, 5, 6]]
    assert found.lengths.tolist() == [2, 3]
    assert found.response_mask.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert found.advantages.tolist() == [[10.0, 11.0, 12.0], [0.0, 1.0, 2.0]]
    assert found.rewards.tolist() == [3.0, 1.0] and found.group.tolist() == [9, 7]
    assert found.prompt_lengths.tolist() == [1, 1] and found.mm_inputs == ({"a": 2}, {"a": 0})
    assert found.temperature == 0.7 and not found.has("old_logprobs") and len(found) == 2
    assert len(batch) == 3 and batch.input_ids.shape == (3, 5)


def test_select_repeats_rows_and_takes_none(batch_of):
    batch = batch_of(ROWS)
    assert batch.select([1, 1]).input_ids.tolist() == [[1, 5, 7, 8, 9]] * 2
    assert batch.select([]).input_ids.shape == (0, 0)


def test_moving_a_batch_keeps_what_is_empty_empty(batch_of):
    moved = batch_of(ROWS, temperature=0.5).to(torch.device("meta"))
    assert moved.input_ids.device.type == moved.rewards.device.type == "meta"
    assert moved.temperature == 0.5 and not moved.has("values")


def test_a_batch_cannot_be_edited(batch_of):
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch_of(ROWS).temperature = 2.0


def test_types_import_without_torch():
    code = "import sys, lightrft.types; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
