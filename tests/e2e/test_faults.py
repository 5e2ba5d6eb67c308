"""Faults put into real runs of two ranks under torchrun: each is told of in less than a minute, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from on_ranks import of_launch, torchrun
from runs import DEADLINE_S, ROOT, read_json, wait_for_steps, words

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
    marked = {**of_launch(), "LIGHTRFT_TEST": str(folder)}
    done = subprocess.run(
        ["timeout", "-k", "5", "200", *command], cwd=folder, env=marked, capture_output=True, text=True
    )
    ended = time.time()
    assert not left_over(folder), f"processes are left: {done.stderr[-4000:]}"
    began = folder / "began"
    return Ending(done.returncode, done.stderr, ended - float(began.read_text()) if began.exists() else 0.0)


def left_over(folder: Path) -> dict[int, dict[str, str]]:
    """Processes that have the launch's mark, each with its environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            rows = (process / "environ").read_text(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile, or is another user's
            continue
        named = dict(row.split("=", 1) for row in rows if "=" in row)
        if named.get("LIGHTRFT_TEST") == str(folder):
            found[int(process.name)] = named
    return found


def with_fault(folder: Path, name: str) -> Ending:
    starts_child = name not in ("killed", "larger_message")  # these end without a chance to end others
    (folder / "fault.py").write_text(REWARD.format(name=name, fault=FAULTS[name], starts_child=starts_child))
    flags = words(f"{FLAGS} --reward_fn fault.py:{name}")
    return launch(folder, torchrun(2, str(ROOT / "train.py"), *flags))


def test_a_rank_that_is_killed(here: Path):
    check_fault(with_fault(here, "killed"), "killed")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "killed"])
def test_a_fault_of_one_rank(here: Path, name: str):
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


def test_what_one_rank_refuses_is_said_once(here: Path):
    """Rank 1 does not find its data: as where a folder is missing on one machine."""
    for rank in range(2):
        (here / f"rank{rank}").mkdir()
        for name in ("tiny", "eval.jsonl", *(["add.jsonl"] if rank == 0 else [])):
            (here / f"rank{rank}" / name).symlink_to(here / name)
    (here / "apart.py").write_text(
        "import os\nfrom lightrft.cli import start\nos.chdir('rank' + os.environ['RANK'])\nstart('text')\n"
    )
    ended = launch(here, torchrun(2, "apart.py", *words(f"{FLAGS} --save_path ../out")))
    refusal = "--prompt_data add.jsonl: no such file"
    assert ended.err.count(f"error: {refusal}") == 1 and ended.cause.startswith(refusal), ended.err
    assert ended.exit_codes == {0: 2, 1: 2} and not (here / "out").exists()


@pytest.mark.slow
def test_a_bug_on_one_rank_has_its_traceback_once(here: Path):
    (here / "bug.py").write_text(BUG)
    ended = launch(here, torchrun(2, "bug.py", *words(FLAGS)))
    assert ended.err.count("Traceback (most") == 2, "torchrun's own is the other"
    assert "in broken\n" in ended.err and ended.cause == "ZeroDivisionError: on rank 1"
    assert ended.exit_codes == {0: 1, 1: 1} and "error: rank 0" not in ended.err


@pytest.mark.slow
def test_trackers_are_closed_where_a_run_fails(here: Path):
    """On rank 0, which takes its time, while rank 1 has told why, and left, long ago."""
    (here / "slow_end.py").write_text(SLOW_END)
    ended = launch(here, torchrun(2, "slow_end.py", *words(f"{FLAGS} --reward_fn shaped.py:nan")))
    assert (here / "closed").exists() and ended.exit_codes == {0: 1, 1: 1}, ended.err
    assert ended.err.count("error: ") == 1, ended.err


SLOW_END = """
import os, time
from pathlib import Path
from lightrft.cli import start
from lightrft.track.base import Loggers

def close(loggers, close=Loggers.close):
    close(loggers)
    if os.environ["RANK"] == "0":
        time.sleep(8)
        Path("closed").touch()

Loggers.close = close
start("text")
"""


BUG = """
import os
from lightrft.cli import start
from lightrft.update.step import Updater

def broken(updater):
    raise ZeroDivisionError("on rank 1")

if os.environ["RANK"] == "1":
    Updater.report = broken
start("text")
"""


@pytest.mark.slow
def test_a_rank_that_waits_for_a_slower_one_is_not_stuck(here: Path):
    """Eight rewards of three seconds each on rank 1, while rank 0 waits for longer than is allowed."""
    (here / "slowly.py").write_text(
        "import os, time\n\ndef slowly(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    time.sleep(3 * int(os.environ['RANK']))\n    return float(len(solution_str))\n"
    )
    base = " ".join(words("")).replace("--eval_data eval.jsonl ", "")
    flags = words(f"{FLAGS} --max_steps 1 --watchdog_s 9 --reward_fn slowly.py:slowly", base)
    assert launch(here, torchrun(2, str(ROOT / "train.py"), *flags)).code == 0


def started(folder: Path) -> subprocess.Popen:
    """Two ranks that have taken a step, and would take some minutes more."""
    flags = words("--fsdp --save_path out --save_interval 0 --max_steps 500 --reward_fn shaped.py:slow")
    command = torchrun(2, str(ROOT / "train.py"), *flags)
    marked = {**of_launch(), "LIGHTRFT_TEST": str(folder)}
    process = subprocess.Popen(
        command, cwd=folder, env=marked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_steps(process, folder / "out", 1)
    return process


def test_no_rank_outlives_its_launcher(here: Path):
    """Nor is there anything that it could hold up: the run's folder is free at once."""
    launcher = started(here)
    assert len(left_over(here)) >= 3
    launcher.kill()
    launcher.wait()
    end = time.monotonic() + WITHIN_S
    while left_over(here) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left_over(here)
    launcher.communicate()


def test_a_signal_to_one_rank_lets_all_finish_the_step_and_save(here: Path):
    launcher = started(here)
    (second,) = [process for process, named in left_over(here).items() if named.get("RANK") == "1"]
    os.kill(second, signal.SIGTERM)
    out, err = launcher.communicate(timeout=DEADLINE_S)
    assert launcher.returncode == 0 and not left_over(here), err
    steps = read_json(here / "out/summary.json")["steps"]
    assert out.count(f"stopped by SIGTERM after step {steps}; go on with --load_checkpoint") == 1
    assert "checkpoint: " in out and "error" not in err
