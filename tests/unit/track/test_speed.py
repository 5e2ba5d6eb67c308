from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightrft.models.flops import Work
from lightrft.track.speed import Speed


def test_tokens_and_operations_of_the_rows_that_moved():
    """Of three rows this process has two, of which one moved, of 4 tokens; two epochs in 2 s, peak 100."""
    index: Any = SimpleNamespace(
        own=np.array([0, 2]),
        moves=np.array([True, True, False]),
        lengths=np.array([4, 9, 9]),
        trained=np.array([3, 1, 1]),
    )
    perf = {"perf/update_s": 2.0, "perf/train_tokens": 40.0}
    work = Work(per_token=1.0, per_pair=0.5, per_output=2.0)
    done = 2 * (4 * 1 + 0.5 * (4 * 5 / 2) + 2 * 3)
    assert Speed(work, 2, peak=100.0)(index, perf) == {"perf/train_tokens_per_s": 20.0, "perf/mfu": done / 2 / 100}
    assert Speed(work, 2)(index, perf) == {"perf/train_tokens_per_s": 20.0}
    both = 2 * (13 * 1 + 0.5 * (4 * 5 / 2 + 9 * 10 / 2) + 2 * 4)  # with the row that has no advantage
    assert Speed(work, 2, peak=100.0, skips=lambda: False)(index, perf)["perf/mfu"] == both / 2 / 100
    shared = Speed(work, 2, peak=100.0, sharing=2)(index, perf)
    assert shared["perf/mfu"] == pytest.approx(done / 2 / 100 / 2) and shared["perf/train_tokens_per_s"] == 10.0
