"""How the process group is made on GPUs, of which there need be none here, and left."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import torch.distributed as dist

from lightrft import cli
from lightrft.errors import RunFailed
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


@pytest.mark.parametrize(
    ("raised", "code"),
    [(None, 0), (RunFailed("no room"), 1), (KeyboardInterrupt(), 1), (torch.OutOfMemoryError("CUDA out of memory"), 1)],
)
def test_a_rank_that_fails_does_not_wait_for_others_to_leave_with_it(monkeypatch, raised, code):
    """Some may have gone, and no watchdog looks any more. A process alone leaves, and may run once more."""
    left = []

    def runs(words, program):
        if raised is not None:
            raise raised
        return 0

    monkeypatch.setattr(cli, "_run", runs)
    monkeypatch.setattr(cli, "report_failure", lambda *told: None)
    monkeypatch.setattr(launch, "leave_world", lambda: left.append(os.environ["WORLD_SIZE"]))
    for processes in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert cli.main(argv=[]) == code
    assert left == (["1"] if code else ["1", "2"])


def test_arguments_are_printed_once(monkeypatch, capsys):
    for name, value in {**TORCHRUN, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    needed = "--pretrain a --prompt_data b --save_path c --train_batch_size 8 --rollout_batch_size 8"
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(argv=[*needed.split(), "--print_args"]) == 0
        assert ("--max_len" in capsys.readouterr().out) == (rank == "0")


def test_what_processes_of_a_sequence_send_is_told(monkeypatch):
    from lightrft.ranks import sequences
    from lightrft.ranks.pulse import Pulse

    pulse = Pulse()
    monkeypatch.setattr(sequences, "PULSE", pulse)
    ranks = sequences.SequenceRanks(launch.join_world())
    values = torch.ones(1, requires_grad=True)
    ranks.total(values).sum().backward()
    assert "total of sequences (returned)" in pulse.describe()
    ranks.exchange(values[None]).sum().backward()
    assert "exchange of sequences (returned)" in pulse.describe() and pulse.beats == 4
    launch.leave_world()


def test_who_has_no_address_is_told_nothing(monkeypatch):
    from lightrft.ranks.store import Line

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert Line(0).get("failure") is None and Line(0).add("moved", 1) is None
    Line(0).set("failure", "why")
