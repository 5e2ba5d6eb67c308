from __future__ import annotations

import pytest

from lightrft.loop.due import Due


@pytest.mark.parametrize("every, step, due", [(3, 3, True), (3, 4, False), (None, 3, False), (1, 7, True)])
def test_due_by_steps(every, step, due):
    assert Due(every, 0)(step, 0.1, 0.2) is due


@pytest.mark.parametrize(
    "every, before, after, due",
    [(1, 0.9, 1.0, True), (1, 1.0, 1.1, False), (2, 0.9, 1.1, False), (2, 1.9, 2.3, True), (1, 0.5, 3.5, True)],
)
def test_due_by_episodes(every, before, after, due):
    assert Due(None, every)(1, before, after) is due
