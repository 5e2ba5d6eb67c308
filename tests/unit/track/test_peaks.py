from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightrft.track.peaks import peak_memory


def test_the_process_s_memory_is_what_the_system_calls_its_high_water_mark():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = int(status["VmHWM"].removesuffix("kB"))
    assert peak_memory()["perf/peak_memory_gib"] == pytest.approx(kib / 2**20, rel=0.01)


def test_a_gpu_s_memory_is_shown_where_there_is_one_and_counted_anew_for_each_step(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_memory().keys() == {"perf/peak_memory_gib"}
    used = [3 << 30, 1 << 30]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: used[0])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 4 << 30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: used.pop(0))
    assert [peak_memory()["perf/peak_device_memory_gib"] for _ in range(2)] == [3, 1]
    used.append(0)
    assert peak_memory()["perf/peak_device_reserved_gib"] == 4
