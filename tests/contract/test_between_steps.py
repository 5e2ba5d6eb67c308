"""A loan inside a step, a checkpoint after a skipped one: every strategy and precision, on one and two processes."""

from __future__ import annotations

import pytest
from between_steps import CHECKS, COLUMNS
from launch import launch
from policies import arguments, own_strategy


@pytest.mark.parametrize(("flags", "precision"), COLUMNS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_one_process(world, tmp_path, check, flags, precision):
    check(own_strategy(arguments(flags), world, precision), tmp_path)


def test_on_two_processes(tmp_path):
    """In one launch."""
    launch("between_steps.py", 2, tmp_path, seconds=200)
