"""The processes that this one has started, and theirs."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_children() -> None:
    """Kills them all (Linux), those first that might start others: for a process that cannot wait for them any more."""
    for child in _children(os.getpid()):
        _end(child)


def _end(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGSTOP)  # it starts no other while its own are looked up
        for child in _children(process):
            _end(child)
        os.kill(process, signal.SIGKILL)


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*"):
        with suppress(OSError):  # it has ended meanwhile
            found += map(int, (thread / "children").read_text().split())
    return found
