"""A process that ends with the one that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def die_with_launcher() -> None:
    """Under torchrun: a launcher that is killed cannot end its ranks, and they would race the run that is resumed."""
    if under_torchrun():
        die_with_parent(os.getppid())


def die_with_parent(parent: int) -> None:
    """The kernel ends this process (SIGKILL) as soon as `parent`, which started it, is gone. On Linux; else nothing.

    It is the parent's *thread* that the kernel watches: a thread that starts such a process must outlive it.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
    if os.getppid() != parent:  # it was gone before this was asked for, so nobody will be told
        os.kill(os.getpid(), signal.SIGKILL)
