"""How the process group is made on GPUs, of which there need be none here, and left."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import torch.distributed as dist

from lightrft.ranks import launch

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
GUESSED = "barrier(): using the device under current context. You can specify `device_id` in `init_process_group`"


@pytest.mark.parametrize(
    ("device", "processes", "expected"),
    [
        ("cpu", 1, ("gloo", None)),
        ("cpu", 4, ("gloo", None)),
        ("cuda:1", 1, ("cpu:gloo,cuda:nccl", None)),
        ("cuda:1", 4, ("cpu:gloo,cuda:nccl", "cuda:1")),
    ],
)
def test_processes_are_bound_to_their_gpus(monkeypatch, device, processes, expected):
    made = []
    monkeypatch.setattr(launch, "_device", lambda: torch.device(device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: made.append((backend, how)))
    for ask in ("get_rank", "get_world_size"):
        monkeypatch.setattr(dist, ask, lambda: processes)
    for name, value in {**TORCHRUN, "WORLD_SIZE": str(processes)}.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        launch.join_world()
        warnings.warn(GUESSED, UserWarning, stacklevel=1)
    ((backend, how),) = made
    bound = how.get("device_id")
    assert (backend, str(bound) if bound else None) == expected
    assert bool(warned) == (expected != ("cpu:gloo,cuda:nccl", None)), "the one that is not bound would be warned of"


def test_joined_twice_and_left_without_a_trace():
    before = dict(os.environ)
    forgotten = []
    for _ in range(2):
        assert launch.join_world() == launch.join_world()
        launch.when_leaving(lambda: forgotten.append(dist.is_initialized()))
        launch.leave_world()
        launch.leave_world()
    assert forgotten == [True, True] and not dist.is_initialized()
    assert {name: os.environ.get(name) for name in TORCHRUN} == {name: before.get(name) for name in TORCHRUN}
