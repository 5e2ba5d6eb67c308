"""A checkpoint goes on under any number of ranks, any ZeRO stage, either strategy and in any precision."""

from __future__ import annotations

import pytest
from launch import launch
from states import LAYOUTS, check, others, save_layout


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory):
    """Of every layout, by one, two and three processes. Two and three load what one less has saved, too."""
    folder = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        save_layout(layout, world, folder)
    for ranks in (2, 3):
        launch("states.py", ranks, folder, seconds=300)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_process_goes_on_from_one_two_and_three(world, saved, layout):
    """From its own, and then from others."""
    first, *_, last = others(layout)
    check(layout, world, [f"1-{layout}", f"2-{first}", f"3-{last}"], saved)
