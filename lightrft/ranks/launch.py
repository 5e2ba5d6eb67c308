"""The process group: from torchrun's environment, or a group of one for plain `python train.py`."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from lightrft.ranks.base import World
from lightrft.ranks.pulse import PULSE

DEFAULT_TIMEOUT = timedelta(minutes=30)

_forget: list[Callable[[], None]] = []  # of libraries that keep process groups of their own
_lone: dict[str, str] = {}  # torchrun's variables, where they are ours


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _alone() -> None:
    """torchrun's variables for one process; DeepSpeed looks for them and otherwise wants MPI."""
    lone = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    _lone.update({name: str(value) for name, value in lone.items()})
    os.environ.update(_lone)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to find this out
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def join_world(sp_size: int = 1, timeout: timedelta = DEFAULT_TIMEOUT) -> World:
    """Joins (or makes) the process group; safe to call again in the same process.

    sp_size: neighbours that share a sequence. timeout: of every collective operation, in groups made later too.
    """
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            _alone()
        with PULSE.during("join"):
            _start(_device(), timeout)
        # groups made of this one, by us or by DeepSpeed, have torch's default and not the timeout of this one
        for default in ("default_pg_timeout", "default_pg_nccl_timeout"):
            setattr(c10d, default, timeout)
    rank, size = dist.get_rank(), dist.get_world_size()
    assert size % sp_size == 0, "args/rules/hardware.py refuses this"
    place = {"dp_rank": rank // sp_size, "dp_size": size // sp_size, "sp_rank": rank % sp_size, "sp_size": sp_size}
    return World(rank, size, **place, device=_device())


def _start(device: torch.device, timeout: timedelta) -> None:
    """On GPUs tensors there go over NCCL and those of the host over gloo, and the group is told which GPU is this
    process's, as barriers would have to guess.

    A single process has nobody to wait for, and on some GPUs fails when groups are split off a bound one (DeepSpeed's
    issue 8248): there the guess, which is right, is not warned of.
    """
    if device.type != "cuda":
        dist.init_process_group("gloo", timeout=timeout)
    elif int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timeout, device_id=device)
    else:
        warnings.filterwarnings("ignore", r"barrier\(\): using the device under current context", UserWarning)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timeout)


def first_to_say(text: str) -> bool:
    """Whether no other process of this run has said it. No process waits for another: some may have gone."""
    if not dist.is_initialized():
        return os.environ.get("LOCAL_RANK", "0") == "0"
    key = f"said {hashlib.sha256(text.encode(errors='replace')).hexdigest()}"
    try:
        return dist.distributed_c10d._get_default_store().add(key, 1) == 1
    except RuntimeError:  # the process that keeps the store has gone
        return True


def leave_world() -> None:
    """Ends the process group, if there is one; `join_world` can then be called again."""
    if not dist.is_initialized():
        return
    while _forget:
        _forget.pop()()
    if dist.is_initialized():
        dist.destroy_process_group()
    while _lone:
        del os.environ[_lone.popitem()[0]]


def when_leaving(forget: Callable[[], None]) -> None:
    """`forget` is called by the next `leave_world`."""
    _forget.append(forget)
