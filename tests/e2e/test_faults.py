"""Faults put into real runs of two ranks under torchrun: each is told of in less than a minute, and nothing is left."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from ranks import environment, torchrun
from runs import ROOT, words

WITHIN_S = 60  # of the fault, until everything has ended
FLAGS = "--fsdp --save_path out --max_steps 9 --save_interval 0 --watchdog_s 12"
FAULTS = {  # what rank 1 does in the rewards of its second step, after an evaluation
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "asleep": "time.sleep(3600)",
    "backtracking": "re.match('(a+)+$', 'a' * 99 + 'b')",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "other_operation": "dist.barrier()",
    "larger_message": "dist.all_reduce(torch.zeros(100_000))",
}
REWARD = """
import os, re, signal, subprocess, time
from pathlib import Path
import torch
import torch.distributed as dist

calls = 0

def {name}(responses):
    global calls
    calls += 1
    if calls == 3 and os.environ["RANK"] == "1":
        if {starts_child}: subprocess.Popen(["sleep", "3600"])
        Path("began").write_text(str(time.time()))
        {fault}
    return [float(len(response)) for response in responses]
"""


@dataclass(frozen=True)
class Ending:
    code: int
    err: str
    seconds: float  # since the fault

    def of_rank(self, rank: int) -> str:
        """What it said of itself."""
        lines = self.err.splitlines()
        return "\n".join(line for line in lines if line.startswith((f"error: rank {rank} ", f"[rank {rank}] ")))

    @property
    def exit_codes(self) -> dict[int, int]:
        """By rank, of those that failed, from torchrun's report."""
        found = re.findall(r"rank +: (\d+) .*\n +exitcode +: (-?\d+) ", self.err)
        return {int(rank): int(code) for rank, code in found}

    @property
    def cause(self) -> str:
        """The last word of torchrun's report."""
        return self.err.rpartition("Root Cause")[2].rpartition("traceback : ")[2].splitlines()[0]


def launch(folder: Path, command: list[str]) -> Ending:
    marked = {**environment(), "LIGHTRFT_TEST": str(folder)}
    done = subprocess.run(
        ["timeout", "-k", "5", "200", *command], cwd=folder, env=marked, capture_output=True, text=True
    )
    ended = time.time()
    assert not left_over(folder), f"processes are left: {done.stderr[-4000:]}"
    began = folder / "began"
    return Ending(done.returncode, done.stderr, ended - float(began.read_text()) if began.exists() else 0.0)


def left_over(folder: Path) -> list[str]:
    """Processes that have the launch's mark."""
    mark, found = f"LIGHTRFT_TEST={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile
            continue
    return found


def with_fault(folder: Path, name: str) -> Ending:
    starts_child = name not in ("killed", "larger_message")  # these end without a chance to end others
    (folder / "fault.py").write_text(REWARD.format(name=name, fault=FAULTS[name], starts_child=starts_child))
    flags = words(f"{FLAGS} --reward_fn fault.py:{name}")
    return launch(folder, torchrun(2, str(ROOT / "train.py"), *flags))


@pytest.mark.parametrize("name", ["killed", "asleep"])
def test_a_fault_of_one_rank(here: Path, name: str):
    check_fault(with_fault(here, name), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["backtracking", "stopped", "other_operation", "larger_message"])
def test_a_further_fault_of_one_rank(here: Path, name: str):
    check_fault(with_fault(here, name), name)


def check_fault(ended: Ending, name: str) -> None:
    """Rank 0 waits where the rewards of all are known, and says so; rank 1 too, if it still can."""
    assert ended.seconds < WITHIN_S and ended.code == 1, ended.err[-4000:]
    told = ended.of_rank(0)
    assert "phase generate for " in told and "last collective operation agree (has not returned for " in told
    assert "in agree" in told and "in _turn" in told
    assert ended.exit_codes[0] == 3
    if name in ("killed", "stopped"):
        assert not ended.of_rank(1) and ended.exit_codes[1] == -9
    else:
        told = ended.of_rank(1) if name != "backtracking" else ended.err
        assert f"in {name}" in told and "in _turn" in told
        assert ended.exit_codes[1] == 3
    if name not in ("killed", "backtracking"):
        assert "error: rank 1 " in ended.err or name == "stopped"
        assert ended.cause.startswith("no progress for 12 s (--watchdog_s 12); phase generate for ")
