from __future__ import annotations

import resource

import pytest
import torch

from lightrft.track.peaks import peak_memory


def test_the_process_s_memory_grows_with_it():
    before = peak_memory()["perf/peak_memory_gib"]
    held = torch.ones(1 << 27)  # 0.5 GiB
    after = peak_memory()["perf/peak_memory_gib"]
    assert before + 0.4 < after < 1000 and held.sum() > 0
    assert after == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, rel=0.01)


def test_a_gpu_s_memory_is_shown_where_there_is_one_and_counted_anew_for_each_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_memory().keys() == {"perf/peak_memory_gib"}
    used = [3 << 30, 1 << 30]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: used[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: used.pop(0))
    assert [peak_memory()["perf/peak_device_memory_gib"] for _ in range(2)] == [3, 1]
