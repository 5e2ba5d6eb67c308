from __future__ import annotations

import json

import pytest
import torch

from lightrft.track.profiler import Profiler


def turn(size):
    return float((torch.ones(size, size) @ torch.ones(size, size)).sum())


def test_only_the_asked_steps_are_profiled(tmp_path):
    profiler = Profiler(tmp_path / "profile", (2,))
    for step in (1, 2, 3):
        with profiler(step):
            assert turn(8) == 512
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["step_000002.json", "step_000002.txt"]
    events = json.loads((tmp_path / "profile/step_000002.json").read_text())["traceEvents"]
    assert sum(event["name"] == "aten::mm" for event in events) == 1
    assert "aten::mm" in (tmp_path / "profile/step_000002.txt").read_text()


def test_no_steps_leave_no_folder(tmp_path):
    with Profiler(tmp_path / "profile", ())(1):
        turn(2)
    assert not (tmp_path / "profile").exists()


def test_a_full_disk_is_reported_and_stops_nothing(tmp_path, full_disk, warnings):
    profiler = Profiler(tmp_path, (1,))
    with full_disk(100), profiler(1):
        turn(2)
    assert any(line.startswith("warning: --profile_steps 1 failed") for line in warnings())


def test_what_fails_in_the_step_itself_gets_through(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), Profiler(tmp_path, (1,))(1):
        raise RuntimeError("mine")
