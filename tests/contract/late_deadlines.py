"""A rank that never comes: how long the others wait for it, in the world and in a group made later.

As a script under torchrun, `late_deadlines.py OUT`, rank 0 writes after how many seconds each of its two calls failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from launch import run_rank
from policies import arguments

from lightrft.cli import _everyone

WAITED = 2.0


def seconds_until_failure(call: Callable[[], object]) -> float:
    start = time.monotonic()
    try:
        call()
    except RuntimeError:
        return time.monotonic() - start
    raise AssertionError("it did not fail")


def main(out: str) -> None:
    everyone = _everyone(arguments(f"--dist_timeout_s {WAITED}"))
    made_later = dist.new_group()
    if everyone.rank == 1:
        time.sleep(4 * WAITED)
        return
    calls = (lambda: dist.all_reduce(torch.zeros(1), group=made_later), lambda: everyone.agree(None))
    torch.save([seconds_until_failure(call) for call in calls], out)


if __name__ == "__main__":
    run_rank(main)
