"""However a run ends, its engines are closed and its process group is gone, and the next run of the process works."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist
from runs import start, train

from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.local import LocalEngine

FLAGS = "--max_steps 1 --quiet --save_interval 0"
REWARDS = """
import os, signal

def stops(responses):
    os.kill(os.getpid(), signal.SIGTERM)
    return [float(i % 2) for i, _ in enumerate(responses)]

def interrupts(responses):
    raise KeyboardInterrupt
"""


@pytest.fixture
def closed(monkeypatch) -> list[LocalEngine]:
    found = []
    monkeypatch.setattr(LocalEngine, "close", lambda engine: found.append(engine) if PULSE.ends else None)
    return found


def test_engines_and_process_group_end_with_the_run(here, closed, monkeypatch):
    """Finished, stopped by a signal, interrupted, failed, and refused after the group was made."""
    (here / "ways.py").write_text(REWARDS)
    monkeypatch.delenv("NCCL_DEBUG", raising=False)
    ends = {
        "--zero_stage 3 --save_path done --save_steps 1": 0,
        "--zero_stage 1 --save_path stopped --max_steps 2 --reward_fn ways.py:stops": 0,
        "--fsdp --save_path broken --reward_fn ways.py:interrupts": 1,
        "--zero_stage 3 --save_path failed --reward_fn shaped.py:nan": 1,
        "--zero_stage 3 --save_path done --load_checkpoint --optimizer sgd": 2,
        "--fsdp --save_path again": 0,
    }
    for flags, code in ends.items():
        closed.clear()
        ended = train(f"{FLAGS} {flags}")
        assert (ended.code, dist.is_initialized()) == (code, False), (flags, ended.err)
        assert "RANK" not in os.environ, "what the run set for itself would be taken for torchrun's"
        assert len(closed) == (0 if code == 2 else 1), f"one for training and evaluation: {flags}"
    assert "NCCL_DEBUG" not in os.environ, "NCCL would print its version"


LEAVES = """
import atexit, ctypes

libc = ctypes.CDLL(None)
libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)  # as a thread of a library's that outlives Python
atexit.register(lambda: open("told", "w").close())

def reward(responses):
    return [float(i % 2) for i, _ in enumerate(responses)]
"""


def test_what_libraries_leave_aborts_no_process_and_what_they_registered_is_called(here):
    (here / "leaves.py").write_text(LEAVES)
    process = start(f"{FLAGS} --save_path run --reward_fn leaves.py:reward", here)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert (here / "told").exists() and (here / "run/summary.json").exists()
