"""Placeholders of each image against its own features, worked out by hand: 1 token for 4 patches."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from lightrft.prompts.placeholders import Mark, misfit, parts_of, runs_of

QUARTER = Fraction(1, 4)
GRIDS = {"pixel_values": torch.zeros(28, 8), "image_grid_thw": torch.tensor([[1, 2, 8], [1, 6, 2]])}  # 16 and 12
CLIP = {"pixel_values_videos": torch.zeros(24, 8), "video_grid_thw": torch.tensor([[3, 2, 4]])}  # 3 x 8
MOVING = {"second_per_grid_ts": torch.tensor([1.0])}


def found(features, kinds, runs, rate=QUARTER, joins=False):
    return misfit(runs, parts_of(features, [Mark(kind, joins) for kind in kinds]), rate)


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([4, 3], None),
        ([7], "image 1 of 2 has 7 placeholders for 4 features"),
        ([5, 2], "image 1 of 2 has 5 placeholders for 4 features"),
        ([3, 4], "image 1 of 2 has 3 placeholders for 4 features"),  # as in the other order
        ([4, 2], "image 2 of 2 has 2 placeholders for 3 features"),
        ([4], "image 2 of 2 has 0 placeholders for 3 features"),
        ([4, 3, 1], "image 2 of 2 has 4 placeholders for 3 features"),
        ([], "image 1 of 2 has 0 placeholders for 4 features"),
    ],
)
def test_images_with_a_grid(runs, fault):
    assert found(GRIDS, ["image", "image"], runs) == fault


def test_images_with_nothing_between_them_may_share_a_run():
    assert found(GRIDS, ["image", "image"], [7], joins=True) is None
    assert found(GRIDS, ["image", "image"], [8], joins=True) == "image 2 of 2 has 4 placeholders for 3 features"


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([6], None),  # one run for all steps in time
        ([2, 2, 2], None),  # one for each
        ([2, 3, 1], "video 1 of 1 has 7 placeholders for 6 features"),
    ],
)
def test_a_video_has_its_places_for_each_step_in_time(runs, fault):
    assert found(CLIP | MOVING, ["video"], runs) == fault


def test_images_and_videos_stand_in_the_order_of_the_text():
    both = GRIDS | CLIP | MOVING
    assert found(both, ["image", "video", "image"], [4, 6, 3]) is None
    assert found(both, ["image", "image", "video"], [4, 6, 3]) == "image 2 of 2 has 6 placeholders for 3 features"


def test_images_that_are_cut_have_places_for_each_tile():
    tiles = {"pixel_values": torch.zeros(1, 3, 3, 8, 8), "pixel_attention_mask": torch.ones(1, 3, 8, 8)}
    assert found(tiles, ["image", "image"], [4, 4, 4], Fraction(4)) is None
    fault = "tile 2 of 3 of its 2 images has 5 placeholders for 4 features"
    assert found(tiles, ["image", "image"], [4, 5, 3], Fraction(4)) == fault


def test_images_that_are_one_piece_each_and_one_that_is_lost():
    whole = {"pixel_values": torch.zeros(2, 3, 8, 8)}
    assert found(whole, ["image", "image"], [8], Fraction(4), joins=True) is None
    lost = "image 3 of 3 has 4 placeholders for 0 features"
    assert found(whole, ["image", "image", "image"], [4, 4, 4], Fraction(4)) == lost


def test_a_video_without_a_grid_is_not_counted():
    assert parts_of({"pixel_values_videos": torch.zeros(1, 8, 3, 8, 8)}, [Mark("video", False)]) == []


def test_runs():
    assert runs_of([1, 9, 9, 2, 8, 9, 3], frozenset({8, 9})) == [2, 2]
